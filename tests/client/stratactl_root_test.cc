// SPDX-License-Identifier: Apache-2.0
//
// stratactl --root on the root of a stopped daemon: that looking changes nothing, and that each
// kind of damage is found and mended. Tests named *MountTest need root.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "client/stratactl/stratactl.h"
#include "snapshotters/core/lmdb_meta_store.h"
#include "snapshotters/core/tree_snapshotter.h"
#include "snapshotters/fuse_overlayfs/fuse_overlayfs_snapshotter.h"
#include "snapshotters/native/native_snapshotter.h"
#include "snapshotters/os/fuse_overlay_probe.h"
#include "snapshotters/os/mount_ops.h"
#include "snapshotters/os/state_root.h"
#include "snapshotters/overlayfs/overlayfs_snapshotter.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace strata::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Json = nlohmann::json;
namespace fs = std::filesystem;

// What tells one state of a tree from another: all but the times of access.
std::map<std::string, std::string> StateOf(const std::string& root) {
  std::map<std::string, std::string> state;
  std::vector<std::string> paths = {root};
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    paths.push_back(entry.path());
  }
  for (const std::string& path : paths) {
    struct stat found {};
    EXPECT_EQ(::lstat(path.c_str(), &found), 0) << path;
    std::ostringstream text;
    text << found.st_ino << " " << found.st_mode << " " << found.st_uid << " " << found.st_nlink
         << " " << found.st_size << " " << found.st_blocks << " " << found.st_mtim.tv_sec << "."
         << found.st_mtim.tv_nsec << " " << found.st_ctim.tv_sec << "." << found.st_ctim.tv_nsec;
    if (S_ISREG(found.st_mode)) {
      text << " " << std::ifstream(path).rdbuf();
    }
    state[path] = text.str();
  }
  return state;
}

void WriteFile(const std::string& path, const std::string& content) {
  std::ofstream(path) << content;
  ASSERT_TRUE(fs::exists(path)) << path;
}

struct Ran {
  int code = 0;
  std::string out;
  std::string err;
};

Ran Ctl(const std::vector<std::string>& arguments) {
  std::ostringstream out;
  std::ostringstream err;
  const int code = Stratactl(arguments, out, err);
  return {.code = code, .out = out.str(), .err = err.str()};
}

// `from` is a store or a transaction.
template <typename Source>
StatusOr<SnapshotRecord> Record(Source& from, const std::string& name) {
  STRATA_ASSIGN_OR_RETURN(std::optional<SnapshotRecord> record, from.Find(name));
  return record.has_value() ? StatusOr<SnapshotRecord>(*std::move(record))
                            : MakeStatus(StatusCode::kNotFound, name);
}

// A root with the snapshots bottom <- middle <- top <- active, and a view of middle.
class RootTest : public ::testing::Test {
 protected:
  void SetUp() override { Fill(); }

  virtual StatusOr<std::unique_ptr<TreeSnapshotter>> Open() {
    return NativeSnapshotter::Create({.root = root(), .allow_volatile = true});
  }
  [[nodiscard]] virtual std::string FilesOf(const std::string& id) const {
    return root() + "/snapshots/" + id;
  }

  [[nodiscard]] std::string root() const { return dir_.Join("root"); }

  void Fill() {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, Open());
    CallContext call;
    std::string parent;
    for (const std::string name : {"bottom", "middle", "top"}) {
      ASSERT_THAT(snapshotter->Prepare(call, name + "-key", parent, {}), IsOk());
      STRATA_ASSERT_OK_AND_ASSIGN(const auto record, Record(snapshotter->store(), name + "-key"));
      ids_[name] = std::to_string(record.id);
      WriteFile(FilesOf(ids_[name]) + "/" + name, std::string(5000, 'x'));
      ASSERT_THAT(snapshotter->Commit(call, name, name + "-key", {.labels = {{"of", name}}}),
                  IsOk());
      parent = name;
    }
    ASSERT_THAT(snapshotter->Prepare(call, "active", "top", {}), IsOk());
    ASSERT_THAT(snapshotter->View(call, "view", "middle", {}), IsOk());
    for (const std::string name : {"active", "view"}) {
      STRATA_ASSERT_OK_AND_ASSIGN(const auto record, Record(snapshotter->store(), name));
      ids_[name] = std::to_string(record.id);
    }
  }

  // Changes records as no daemon would.
  void Tamper(const MetaStore::Mutation& mutation) {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto root, StateRoot::OpenStopped(this->root()));
    STRATA_ASSERT_OK_AND_ASSIGN(const auto store,
                                OpenLmdbMetaStore({.directory = root->metadata_path(),
                                                   .kind = root->kind(),
                                                   .uuid = root->uuid(),
                                                   .use = LmdbUse::kRepair}));
    ASSERT_THAT(store->Mutate(mutation), IsOk());
  }

  void EraseRecord(const std::string& name) {
    Tamper([&](MetaTransaction& txn) -> Status {
      STRATA_ASSIGN_OR_RETURN(const auto record, Record(txn, name));
      return txn.Erase(record);
    });
  }

  [[nodiscard]] Json Fsck(const std::vector<std::string>& more = {}, int expected = 0) const {
    std::vector<std::string> arguments = {"--json", "--root", root(), "fsck"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Ran ran = Ctl(arguments);
    EXPECT_EQ(ran.code, expected) << ran.out << ran.err;
    return Json::parse(ran.out, nullptr, /*allow_exceptions=*/false);
  }

  // "problem path" of each finding.
  static std::vector<std::string> Problems(const Json& said) {
    std::vector<std::string> out;
    for (const Json& finding : said["findings"]) {
      out.push_back(finding["problem"].get<std::string>() + " " +
                    finding["path"].get<std::string>());
    }
    std::sort(out.begin(), out.end());
    return out;
  }

  // The damage is found, told without a change, mended, and then there is none.
  void ExpectMended(const std::string& problem, int found_code = 1) {
    const auto before = StateOf(root());
    EXPECT_THAT(Problems(Fsck({}, found_code)), ElementsAre(problem));
    EXPECT_EQ(StateOf(root()), before);
    const bool has_lock_file = fs::exists(root() + "/metadata/lock.mdb");
    const Json mended = Fsck({"--repair"});
    EXPECT_THAT(Problems(mended), ElementsAre(problem));
    EXPECT_EQ(fs::exists(root() + "/metadata/lock.mdb"), has_lock_file);
    ASSERT_EQ(mended["repairs"].size(), 1U) << mended;
    EXPECT_EQ(mended["repairs"][0]["repaired"], true);
    EXPECT_THAT(Problems(Fsck()), IsEmpty());
    ExpectServes();
  }

  void ExpectServes() {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, Open());
    CallContext call;
    EXPECT_THAT(snapshotter->Prepare(call, "new-key", "bottom", {}), IsOk());
    EXPECT_THAT(snapshotter->Mounts(call, "new-key"), IsOk());
    EXPECT_THAT(snapshotter->GetUsage(call, "new-key"), IsOk());
    EXPECT_THAT(snapshotter->Commit(call, "new", "new-key", {}), IsOk());
    EXPECT_THAT(snapshotter->View(call, "new-view", "new", {}), IsOk());
    EXPECT_THAT(snapshotter->Remove(call, "new-view"), IsOk());
    EXPECT_THAT(snapshotter->Remove(call, "new"), IsOk());
  }

  void ExpectUnchangedByEveryCommand() {
    const auto before = StateOf(root());
    for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
             {"ls", "--labels"}, {"tree"}, {"du"}, {"df"}, {"fsck"}, {"fsck", "--repair"}}) {
      std::vector<std::string> arguments = {"--root", root()};
      arguments.insert(arguments.end(), command.begin(), command.end());
      const Ran ran = Ctl(arguments);
      EXPECT_EQ(ran.code, 0) << command.front() << ": " << ran.out << ran.err;
      EXPECT_EQ(StateOf(root()), before) << command.front();
    }
  }

  TempDir dir_;
  std::map<std::string, std::string> ids_;
};

class StratactlRootTest : public RootTest {};

TEST_F(StratactlRootTest, LeavesAHealthyRootAsItIs) {
  ExpectUnchangedByEveryCommand();
}

TEST_F(StratactlRootTest, ListsSnapshotsWithWhatTheyAre) {
  const Ran ran = Ctl({"--json", "--root", root(), "ls", "--labels"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  const Json rows = Json::parse(ran.out);
  ASSERT_EQ(rows.size(), 5U);
  EXPECT_EQ(rows[1]["name"], "middle");
  EXPECT_EQ(rows[1]["parent"], "bottom");
  EXPECT_EQ(rows[1]["kind"], "committed");
  EXPECT_EQ(rows[1]["labels"]["of"], "middle");
  EXPECT_GE(rows[1]["size"], 8192);
  EXPECT_EQ(rows[3]["kind"], "active");
  EXPECT_GE(rows[3]["size"], 4096);
  EXPECT_EQ(rows[4]["size"], 0);
}

TEST_F(StratactlRootTest, RefusesARootThatIsServed) {
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, Open());
  const Ran ran = Ctl({"--root", root(), "fsck", "--repair"});
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr("is in use by a daemon"));
}

TEST_F(StratactlRootTest, RefusesWhatIsNoRootAndMakesNone) {
  ASSERT_TRUE(fs::create_directory(dir_.Join("other")));
  EXPECT_EQ(Ctl({"--root", dir_.Join("other"), "ls"}).code, 1);
  EXPECT_TRUE(fs::is_empty(dir_.Join("other")));
  EXPECT_EQ(Ctl({"--root", dir_.Join("none"), "ls"}).code, 1);
  EXPECT_FALSE(fs::exists(dir_.Join("none")));
}

TEST_F(StratactlRootTest, DoesNotRepairAStoreThatCannotBeRead) {
  std::fstream file(root() + "/metadata/data.mdb");
  file.seekp(8192);
  file << std::string(65536, '\xff');
  file.close();
  const auto before = StateOf(root());
  const Ran ran = Ctl({"--root", root(), "fsck", "--repair"});
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.err, HasSubstr("metadata store"));
  EXPECT_EQ(StateOf(root()), before);
}

TEST_F(StratactlRootTest, RemovesADirectoryWithoutARecord) {
  ASSERT_TRUE(fs::create_directories(root() + "/snapshots/4000/fs"));
  WriteFile(root() + "/snapshots/4000/fs/file", std::string(100'000, 'x'));
  const Json said = Fsck({}, 1);
  EXPECT_GE(said["findings"][0]["size"], 100'000);
  ExpectMended("no-record snapshots/4000");
  EXPECT_FALSE(fs::exists(root() + "/snapshots/4000"));
  EXPECT_TRUE(fs::is_empty(root() + "/trash"));
}

TEST_F(StratactlRootTest, RemovesARecordWithoutADirectory) {
  fs::remove_all(root() + "/snapshots/" + ids_["active"]);
  ExpectMended("no-directory snapshots/" + ids_["active"]);
}

TEST_F(StratactlRootTest, KeepsARecordOnWhichOthersAre) {
  fs::remove_all(root() + "/snapshots/" + ids_["top"]);
  const Json said = Fsck({"--repair"}, 1);
  EXPECT_THAT(Problems(said), ElementsAre("no-directory snapshots/" + ids_["top"]));
  EXPECT_THAT(said["repairs"], IsEmpty());
  EXPECT_THAT(said["findings"][0]["repair"], HasSubstr("remove those first"));
}

TEST_F(StratactlRootTest, RemovesARecordOnceThoseOnItAreGone) {
  fs::remove_all(root() + "/snapshots/" + ids_["top"]);
  fs::remove_all(root() + "/snapshots/" + ids_["active"]);
  const Json said = Fsck({"--repair"});
  EXPECT_EQ(said["repairs"].size(), 2U) << said;
  EXPECT_EQ(said["wrong"], 0);
  ExpectServes();
}

TEST_F(StratactlRootTest, PutsAWrongChainRight) {
  Tamper([](MetaTransaction& txn) -> Status {
    STRATA_ASSIGN_OR_RETURN(auto record, Record(txn, "top"));
    record.chain.pop_back();
    return txn.Put(record);
  });
  // What is on it disagrees with it, but is right.
  ExpectMended("wrong-parent snapshots/" + ids_["top"]);
}

TEST_F(StratactlRootTest, PutsAWrongParentRight) {
  Tamper([](MetaTransaction& txn) -> Status {
    STRATA_ASSIGN_OR_RETURN(auto record, Record(txn, "active"));
    STRATA_ASSIGN_OR_RETURN(const auto bottom, Record(txn, "bottom"));
    record.chain = {bottom.id};
    return txn.Put(record);
  });
  ExpectMended("wrong-parent snapshots/" + ids_["active"]);
}

TEST_F(StratactlRootTest, ReportsALostParentAndChangesNothing) {
  EraseRecord("top");
  const Json said = Fsck({"--repair"}, 1);
  // Its directory has no record now, and goes.
  EXPECT_THAT(Problems(said), ElementsAre("lost-parent snapshots/" + ids_["active"],
                                          "no-record snapshots/" + ids_["top"]));
  EXPECT_THAT(Problems(Fsck({}, 1)), ElementsAre("lost-parent snapshots/" + ids_["active"]));
  ExpectServes();
}

TEST_F(StratactlRootTest, ReportsParentsInACircle) {
  Tamper([](MetaTransaction& txn) -> Status {
    STRATA_ASSIGN_OR_RETURN(auto record, Record(txn, "bottom"));
    STRATA_ASSIGN_OR_RETURN(const auto top, Record(txn, "top"));
    record.info.parent = "top";
    record.chain = {top.id};
    return txn.Put(record);
  });
  const Json said = Fsck({"--repair"}, 1);
  EXPECT_THAT(said["repairs"], IsEmpty());
  EXPECT_THAT(said["findings"][0]["detail"], HasSubstr("is on it"));
  const Ran tree = Ctl({"--root", root(), "tree"});
  EXPECT_THAT(tree.out, HasSubstr("middle"));
}

TEST_F(StratactlRootTest, LeavesForeignFilesAlone) {
  WriteFile(root() + "/snapshots/notes", "mine");
  WriteFile(root() + "/backup\x1b[31m", "mine");
  WriteFile(root() + "/metadata/old.mdb", "mine");
  const auto before = StateOf(root());
  const Json said = Fsck({"--repair"});
  EXPECT_THAT(Problems(said), ElementsAre("foreign backup\x1b[31m", "foreign metadata/old.mdb",
                                          "foreign snapshots/notes"));
  EXPECT_EQ(StateOf(root()), before);
  EXPECT_THAT(Ctl({"--root", root(), "fsck"}).out, Not(HasSubstr("\x1b")));
  EXPECT_THAT(Ctl({"--json", "--root", root(), "fsck"}).out, Not(HasSubstr("\x1b")));
  ExpectServes();
}

TEST_F(StratactlRootTest, EmptiesTheTrash) {
  ASSERT_TRUE(fs::create_directories(root() + "/trash/4000/fs"));
  WriteFile(root() + "/trash/4000/fs/file", std::string(100'000, 'x'));
  const Json space = Json::parse(Ctl({"--json", "--root", root(), "df"}).out);
  EXPECT_EQ(space["trash_entries"], 1);
  EXPECT_GE(space["trash_size"], 100'000);
  ExpectMended("trash trash/4000", /*found_code=*/0);
}

TEST_F(StratactlRootTest, KnowsWhatAKilledDaemonLeavesInTheRoot) {
  WriteFile(root() + "/formats.new", "root 1");
  ASSERT_TRUE(fs::create_directory(root() + "/strata-probe-abc"));
  EXPECT_THAT(Problems(Fsck()), IsEmpty());
}

class StratactlLazyRootTest : public ::testing::Test {};

TEST_F(StratactlLazyRootTest, KnowsLayersAndTheirMountPoints) {
  const TempDir dir;
  const std::string path = dir.Join("root");
  {
    STRATA_ASSERT_OK_AND_ASSIGN(
        const auto root, StateRoot::Open({.path = path, .kind = "stargz", .allow_volatile = true}));
    STRATA_ASSERT_OK_AND_ASSIGN(const auto store,
                                OpenLmdbMetaStore({.directory = root->metadata_path(),
                                                   .kind = "stargz",
                                                   .uuid = root->uuid(),
                                                   .create = true}));
    ASSERT_THAT(root->MarkComplete(), IsOk());
    for (const uint64_t number : {uint64_t{7}, uint64_t{8}}) {
      STRATA_ASSERT_OK_AND_ASSIGN(const SnapshotId id, store->NextId());
      const std::string folder = path + "/snapshots/" + std::to_string(id);
      ASSERT_TRUE(fs::create_directory(folder));
      fs::create_symlink("../../l/" + std::to_string(number), folder + "/layer");
      ASSERT_THAT(store->Mutate([&](MetaTransaction& txn) {
        return txn.Put(
            {.id = id,
             .info = {.name = "layer-" + std::to_string(number), .kind = Kind::kCommitted}});
      }),
                  IsOk());
    }
    for (const char* folder : {"/layers/7", "/layers/new-9", "/l/7", "/l/9", "/fuse"}) {
      ASSERT_TRUE(fs::create_directories(path + folder));
    }
    WriteFile(path + "/layers/7/image", std::string(20'000, 'x'));
    fs::remove(path + "/metadata/lock.mdb");
  }
  const Ran checked = Ctl({"--json", "--root", path, "fsck", "--repair"});
  EXPECT_EQ(checked.code, 1) << checked.err;
  const Json said = Json::parse(checked.out);
  ASSERT_EQ(said["findings"].size(), 2U) << said;
  EXPECT_EQ(said["findings"][0]["problem"], "lost-layer");
  EXPECT_EQ(said["findings"][0]["name"], "layer-8");
  EXPECT_EQ(said["findings"][1]["problem"], "no-layer");
  EXPECT_FALSE(fs::exists(path + "/l/9"));
  EXPECT_TRUE(fs::exists(path + "/l/7"));
  EXPECT_TRUE(fs::exists(path + "/layers/new-9"));
  const Json rows = Json::parse(Ctl({"--json", "--root", path, "ls"}).out);
  EXPECT_GE(rows[0]["size"], 20'000) << "what is there of the layer";
  const Json space = Json::parse(Ctl({"--json", "--root", path, "df"}).out);
  EXPECT_EQ(space["layers"], 1);
  EXPECT_GE(space["layer_size"], 20'000);
}

class StratactlRootMountTest : public RootTest {
 protected:
  StatusOr<std::unique_ptr<TreeSnapshotter>> Open() override {
    return OverlayfsSnapshotter::Create({.root = root(), .allow_volatile = true});
  }
  [[nodiscard]] std::string FilesOf(const std::string& id) const override {
    return root() + "/snapshots/" + id + "/fs";
  }
};

TEST_F(StratactlRootMountTest, LeavesAHealthyRootAsItIs) {
  ExpectUnchangedByEveryCommand();
}

TEST_F(StratactlRootMountTest, MissesTheFilesOfADirectory) {
  fs::remove_all(root() + "/snapshots/" + ids_["active"] + "/fs");
  // The record goes first, and then the directory has none.
  const Json said = Fsck({"--repair"});
  EXPECT_THAT(Problems(said), ElementsAre("no-directory snapshots/" + ids_["active"],
                                          "no-record snapshots/" + ids_["active"]));
  ExpectServes();
}

TEST_F(StratactlRootMountTest, PutsAWrongChainRight) {
  Tamper([](MetaTransaction& txn) -> Status {
    STRATA_ASSIGN_OR_RETURN(auto record, Record(txn, "active"));
    record.chain.pop_back();
    return txn.Put(record);
  });
  ExpectMended("wrong-parent snapshots/" + ids_["active"]);
  STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, Open());
  CallContext call;
  STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<Mount> mounts, snapshotter->Mounts(call, "active"));
  EXPECT_THAT(mounts.front().options,
              ::testing::Contains("lowerdir=" + FilesOf(ids_["top"]) + ":" +
                                  FilesOf(ids_["middle"]) + ":" + FilesOf(ids_["bottom"])));
}

TEST_F(StratactlRootMountTest, NeverTouchesWhatIsMounted) {
  ASSERT_TRUE(fs::create_directory(dir_.Join("mnt")));
  std::optional<ScopedMount> mounted;
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, Open());
    CallContext call;
    STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<Mount> mounts,
                                snapshotter->Mounts(call, "active"));
    STRATA_ASSERT_OK_AND_ASSIGN(mounted, ScopedMount::Mount(mounts, dir_.Join("mnt")));
  }
  EraseRecord("active");
  const std::string files = FilesOf(ids_["active"]);
  const Json said = Fsck({"--repair"}, 1);
  EXPECT_THAT(Problems(said), ElementsAre("mounted snapshots/" + ids_["active"]));
  EXPECT_THAT(said["findings"][0]["detail"], HasSubstr(dir_.Join("mnt")));
  EXPECT_THAT(said["repairs"], IsEmpty());
  EXPECT_TRUE(fs::exists(files));
  ASSERT_THAT(mounted->Unmount(), IsOk());
  ExpectMended("no-record snapshots/" + ids_["active"]);
  EXPECT_FALSE(fs::exists(files));
}

TEST_F(StratactlRootMountTest, FindsABindOfWhatIsInTheTrash) {
  ASSERT_TRUE(fs::create_directories(root() + "/trash/4000/fs"));
  ASSERT_TRUE(fs::create_directory(dir_.Join("mnt")));
  const Mount bind = {"bind", root() + "/trash/4000/fs", "", {"rbind", "rw"}};
  STRATA_ASSERT_OK_AND_ASSIGN(ScopedMount mounted,
                              ScopedMount::Mount({&bind, 1}, dir_.Join("mnt")));
  EXPECT_THAT(Problems(Fsck({"--repair"}, 1)), ElementsAre("mounted trash/4000"));
  EXPECT_TRUE(fs::exists(root() + "/trash/4000/fs"));
  ASSERT_THAT(mounted.Unmount(), IsOk());
  ExpectMended("trash trash/4000", /*found_code=*/0);
}

TEST_F(StratactlRootMountTest, TreeSaysWhoMounts) {
  ASSERT_TRUE(fs::create_directory(dir_.Join("mnt")));
  std::optional<ScopedMount> mounted;
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, Open());
    CallContext call;
    STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<Mount> mounts,
                                snapshotter->Mounts(call, "active"));
    STRATA_ASSERT_OK_AND_ASSIGN(mounted, ScopedMount::Mount(mounts, dir_.Join("mnt")));
  }
  const Json rows = Json::parse(Ctl({"--json", "--root", root(), "tree"}).out);
  const auto active = std::find_if(rows.begin(), rows.end(),
                                   [](const Json& row) { return row["name"] == "active"; });
  ASSERT_NE(active, rows.end());
  EXPECT_EQ((*active)["used_by"][0]["mount_point"], dir_.Join("mnt")) << rows;
  EXPECT_THAT(Ctl({"--root", root(), "tree"}).out, HasSubstr(dir_.Join("mnt")));
}

class StratactlFuseRootMountTest : public StratactlRootMountTest {
 protected:
  void SetUp() override {
    if (const Status status = ProbeFuseOverlay(dir_.path()); !status.ok()) {
      GTEST_SKIP() << "not installed: fuse-overlayfs: " << StatusMessage(status);
    }
    Fill();
  }
  StatusOr<std::unique_ptr<TreeSnapshotter>> Open() override {
    return FuseOverlayfsSnapshotter::Create({.root = root(), .allow_volatile = true});
  }
};

TEST_F(StratactlFuseRootMountTest, LeavesAHealthyRootAsItIs) {
  ExpectUnchangedByEveryCommand();
}

TEST_F(StratactlFuseRootMountTest, TreeSaysWhoMounts) {
  ASSERT_TRUE(fs::create_directory(dir_.Join("mnt")));
  std::optional<ScopedMount> mounted;
  {
    STRATA_ASSERT_OK_AND_ASSIGN(const auto snapshotter, Open());
    CallContext call;
    STRATA_ASSERT_OK_AND_ASSIGN(const std::vector<Mount> mounts,
                                snapshotter->Mounts(call, "active"));
    STRATA_ASSERT_OK_AND_ASSIGN(mounted, ScopedMount::Mount(mounts, dir_.Join("mnt")));
  }
  const Json rows = Json::parse(Ctl({"--json", "--root", root(), "tree"}).out);
  const auto active = std::find_if(rows.begin(), rows.end(),
                                   [](const Json& row) { return row["name"] == "active"; });
  ASSERT_NE(active, rows.end());
  EXPECT_EQ((*active)["used_by"][0]["mount_point"], dir_.Join("mnt")) << rows;
}

}  // namespace
}  // namespace strata::testing
