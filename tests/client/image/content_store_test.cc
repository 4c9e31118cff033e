// SPDX-License-Identifier: Apache-2.0
#include "client/image/content_store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <memory>
#include <string>

#include "snapshotters/base/digest.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata {
namespace {

namespace fs = std::filesystem;
using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

class ContentStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { Open(); }
  void Open() { STRATA_ASSERT_OK_AND_ASSIGN(store_, ContentStore::Open(directory())); }
  [[nodiscard]] std::string directory() const { return top_.Join("store"); }

  static Descriptor Of(const std::string& bytes) {
    return {.media_type = "text/plain", .digest = Sha256Text(bytes), .size = bytes.size()};
  }
  void Put(const std::string& bytes) {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto writer, store_->Write(Of(bytes)));
    ASSERT_THAT(writer->Write(bytes), IsOk());
    ASSERT_THAT(writer->Commit(), IsOk());
  }

  TempDir top_;
  std::unique_ptr<ContentStore> store_;
};

TEST_F(ContentStoreTest, GivesBackWhatWasCommitted) {
  Put("hello");
  EXPECT_TRUE(store_->Has(Of("hello").digest));
  EXPECT_EQ(store_->ReadBlob(Of("hello").digest, 100).value(), "hello");
  EXPECT_THAT(store_->Write(Of("hello")), StatusIs(StatusCode::kAlreadyExists));
}

TEST_F(ContentStoreTest, GoesOnWithWhatAnEarlierWriterLeft) {
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto writer, store_->Write(Of("hello")));
    ASSERT_THAT(writer->Write("hel"), IsOk());
  }
  Open();
  STRATA_ASSERT_OK_AND_ASSIGN(const auto writer, store_->Write(Of("hello")));
  EXPECT_EQ(writer->offset(), 3U);
  ASSERT_THAT(writer->Write("lo"), IsOk());
  EXPECT_THAT(writer->Commit(), IsOk());
}

TEST_F(ContentStoreTest, KeepsNothingOfWrongBytes) {
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto writer, store_->Write(Of("hello")));
    ASSERT_THAT(writer->Write("hxllo"), IsOk());
    EXPECT_THAT(writer->Commit(), StatusIs(StatusCode::kDataLoss));
  }
  EXPECT_FALSE(store_->Has(Of("hello").digest));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto writer, store_->Write(Of("hello")));
  EXPECT_EQ(writer->offset(), 0U);
}

TEST_F(ContentStoreTest, RefusesMoreBytesThanTheDescriptorSays) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto writer, store_->Write(Of("hello")));
  EXPECT_THAT(writer->Write("hello!"), StatusIs(StatusCode::kDataLoss));
}

TEST_F(ContentStoreTest, HasOneWriterOfADigest) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto writer, store_->Write(Of("hello")));
  STRATA_ASSERT_OK_AND_ASSIGN(const auto other, ContentStore::Open(directory()));
  EXPECT_THAT(other->Write(Of("hello")), StatusIs(StatusCode::kUnavailable));
}

TEST_F(ContentStoreTest, FindsANewBlobByWhatWasWritten) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto blob, store_->WriteNew());
  ASSERT_THAT(blob->Write("made"), IsOk());
  STRATA_ASSERT_OK_AND_ASSIGN(const Descriptor made, blob->Commit("text/plain"));
  EXPECT_EQ(made.digest, Of("made").digest);
  EXPECT_EQ(store_->ReadBlob(made.digest, 100).value(), "made");
}

TEST_F(ContentStoreTest, ReplacesAnImageOfTheSameName) {
  ASSERT_THAT(store_->PutImage({.name = "a", .manifest = Of("1")}), IsOk());
  ASSERT_THAT(store_->PutImage({.name = "b", .manifest = Of("2")}), IsOk());
  ASSERT_THAT(store_->PutImage({.name = "a", .manifest = Of("3")}), IsOk());
  Open();
  EXPECT_EQ(store_->ListImages()->size(), 2U);
  EXPECT_EQ(store_->FindImage("a")->manifest.digest, Of("3").digest);
  ASSERT_THAT(store_->RemoveImage("a"), IsOk());
  EXPECT_THAT(store_->FindImage("a"), StatusIs(StatusCode::kNotFound));
  EXPECT_THAT(store_->RemoveImage("a"), StatusIs(StatusCode::kNotFound));
}

TEST_F(ContentStoreTest, RemovesWhatNoImageLeadsTo) {
  Put("layer");
  Put("config");
  Put("other");
  const auto blob = [](const std::string& bytes) {
    return R"({"digest":")" + Of(bytes).digest + R"(","size":)" + std::to_string(bytes.size()) +
           "}";
  };
  const std::string manifest =
      R"({"config":)" + blob("config") + R"(,"layers":[)" + blob("layer") + "]}";
  Put(manifest);
  ASSERT_THAT(store_->PutImage({.name = "a", .manifest = Of(manifest)}), IsOk());
  EXPECT_GT(store_->RemoveUnreferenced().value(), 0U);
  EXPECT_FALSE(store_->Has(Of("other").digest));
  EXPECT_TRUE(store_->Has(Of("layer").digest));
  EXPECT_TRUE(store_->Has(Of("config").digest));
  EXPECT_TRUE(store_->Has(Of(manifest).digest));
}

TEST_F(ContentStoreTest, RemovesNothingWhileAPullKeepsBlobs) {
  Put("other");
  STRATA_ASSERT_OK_AND_ASSIGN(const auto kept, store_->KeepBlobs());
  EXPECT_THAT(store_->RemoveUnreferenced(), StatusIs(StatusCode::kUnavailable));
  EXPECT_TRUE(store_->Has(Of("other").digest));
}

TEST_F(ContentStoreTest, DigestsAreNoPaths) {
  EXPECT_FALSE(store_->Has("sha256:../../index.json"));
  EXPECT_THAT(store_->OpenBlob("sha256:../../index.json"), StatusIs(StatusCode::kInvalidArgument));
  EXPECT_THAT(store_->Write({.digest = "../x"}), StatusIs(StatusCode::kInvalidArgument));
}

TEST_F(ContentStoreTest, RefusesAFolderOfSomethingElse) {
  fs::create_directories(top_.Join("other/stuff"));
  EXPECT_THAT(ContentStore::Open(top_.Join("other")), StatusIs(StatusCode::kFailedPrecondition));
}

}  // namespace
}  // namespace strata
