// SPDX-License-Identifier: Apache-2.0
//
// What no sane client sends, against a live daemon: each call has a clear code, and the daemon
// answers afterwards. Needs root for the overlay that the daemon tries at its start.
#include <google/protobuf/empty.pb.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <services/snapshots/v1/snapshots.grpc.pb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <future>
#include <memory>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "snapshotters/base/unique_fd.h"
#include "tests/support/server_process.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

// For gtest's messages; found by argument-dependent lookup.
namespace grpc {
static void PrintTo(const Status& status, std::ostream* out) {
  *out << status.error_code() << " '" << status.error_message() << "'";
}
}  // namespace grpc

namespace strata::testing {
namespace {

namespace wire = containerd::services::snapshots::v1;
using google::protobuf::Empty;

constexpr const char* kService = "/containerd.services.snapshots.v1.Snapshots/";
constexpr size_t kMessageLimit = size_t{16} << 20;
constexpr size_t kLongestName = size_t{64} << 10;
constexpr std::chrono::seconds kLimit{30};  // only a test that fails waits this long
constexpr int kConnections = 500;

// RFC 9113, 3.4: how a client begins; then an empty SETTINGS frame.
const std::string kPreface("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const std::string kEmptySettings("\0\0\0\4\0\0\0\0\0", 9);

MATCHER_P(HasCode, code, "has gRPC code " + std::to_string(code)) {
  (void)result_listener;  // gtest prints the status itself
  return arg.error_code() == code;
}

// A field of a protobuf message with bytes of any kind in it.
std::string Field(int number, const std::string& bytes) {
  std::string field(1, static_cast<char>(number << 3 | 2));
  size_t length = bytes.size();
  while (length >= 0x80) {
    field += static_cast<char>(length | 0x80);
    length >>= 7;
  }
  return field + static_cast<char>(length) + bytes;
}

class BadCallsTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      GTEST_SKIP() << "not run: needs root, since the daemon mounts an overlay to try it";
    }
    const char* build = std::getenv("STRATA_BUILD_ROOT");
    ASSERT_NE(build, nullptr) << "STRATA_BUILD_ROOT: expected the build directory";
    auto server = ServerProcess::Start({
        .program = std::string(build) + "/services/strata-" + GetParam(),
        .root = directory_.Join("root"),
        .socket = socket_,
        .log = directory_.Join("log"),
        .extra_arguments = {"--allow-volatile-root", "--anchor-dir", ""},
    });
    ASSERT_THAT(server, IsOk());
    server_.emplace(*std::move(server));
    ASSERT_THAT(server_->WaitServing(), IsOk());
    grpc::ChannelArguments arguments;
    arguments.SetMaxSendMessageSize(-1);
    arguments.SetMaxReceiveMessageSize(-1);
    channel_ =
        grpc::CreateCustomChannel("unix:" + socket_, grpc::InsecureChannelCredentials(), arguments);
    stub_ = wire::Snapshots::NewStub(channel_);
    ASSERT_THAT(Prepare("active", ""), HasCode(grpc::OK));
    ASSERT_THAT(Prepare("base-active", ""), HasCode(grpc::OK));
    ASSERT_THAT(Commit("base", "base-active"), HasCode(grpc::OK));
    before_ = List();
  }

  void TearDown() override {
    if (!server_.has_value()) {
      return;
    }
    EXPECT_EQ(List(), before_) << "something was changed";
    EXPECT_THAT(Prepare("afterwards", "base"), HasCode(grpc::OK));
    EXPECT_THAT(Remove("afterwards"), HasCode(grpc::OK));
    EXPECT_FALSE(server_->Ended());
    stub_.reset();
    channel_.reset();
    const StatusOr<int> code = server_->Stop();
    ASSERT_THAT(code, IsOk());
    EXPECT_EQ(*code, 0);
  }

  static void Prepare(grpc::ClientContext* context) {
    context->set_deadline(std::chrono::system_clock::now() + kLimit);
    context->set_wait_for_ready(true);
  }

  grpc::Status Prepare(const std::string& key, const std::string& parent) {
    wire::PrepareSnapshotRequest request;
    request.set_key(key);
    request.set_parent(parent);
    wire::PrepareSnapshotResponse response;
    grpc::ClientContext context;
    Prepare(&context);
    return stub_->Prepare(&context, request, &response);
  }

  grpc::Status View(const std::string& key, const std::string& parent) {
    wire::ViewSnapshotRequest request;
    request.set_key(key);
    request.set_parent(parent);
    wire::ViewSnapshotResponse response;
    grpc::ClientContext context;
    Prepare(&context);
    return stub_->View(&context, request, &response);
  }

  grpc::Status Commit(const std::string& name, const std::string& key) {
    wire::CommitSnapshotRequest request;
    request.set_name(name);
    request.set_key(key);
    Empty response;
    grpc::ClientContext context;
    Prepare(&context);
    return stub_->Commit(&context, request, &response);
  }

  grpc::Status Remove(const std::string& key) {
    wire::RemoveSnapshotRequest request;
    request.set_key(key);
    Empty response;
    grpc::ClientContext context;
    Prepare(&context);
    return stub_->Remove(&context, request, &response);
  }

  grpc::Status Stat(const std::string& key) {
    wire::StatSnapshotRequest request;
    request.set_key(key);
    wire::StatSnapshotResponse response;
    grpc::ClientContext context;
    Prepare(&context);
    return stub_->Stat(&context, request, &response);
  }

  grpc::Status Mounts(const std::string& key) {
    wire::MountsRequest request;
    request.set_key(key);
    wire::MountsResponse response;
    grpc::ClientContext context;
    Prepare(&context);
    return stub_->Mounts(&context, request, &response);
  }

  grpc::Status Usage(const std::string& key) {
    wire::UsageRequest request;
    request.set_key(key);
    wire::UsageResponse response;
    grpc::ClientContext context;
    Prepare(&context);
    return stub_->Usage(&context, request, &response);
  }

  grpc::Status Update(const wire::UpdateSnapshotRequest& request) {
    wire::UpdateSnapshotResponse response;
    grpc::ClientContext context;
    Prepare(&context);
    return stub_->Update(&context, request, &response);
  }

  grpc::Status Update(const std::string& name, const std::vector<std::string>& mask) {
    wire::UpdateSnapshotRequest request;
    request.mutable_info()->set_name(name);
    (*request.mutable_info()->mutable_labels())["key"] = "value";
    for (const std::string& path : mask) {
      request.mutable_update_mask()->add_paths(path);
    }
    return Update(request);
  }

  // Rows are added to `rows`, as text.
  grpc::Status List(const std::vector<std::string>& filters, std::vector<std::string>* rows) {
    wire::ListSnapshotsRequest request;
    request.mutable_filters()->Assign(filters.begin(), filters.end());
    grpc::ClientContext context;
    Prepare(&context);
    const auto reader = stub_->List(&context, request);
    wire::ListSnapshotsResponse page;
    while (reader->Read(&page)) {
      for (const wire::Info& info : page.info()) {
        rows->push_back(info.ShortDebugString());
      }
    }
    return reader->Finish();
  }

  std::vector<std::string> List() {
    std::vector<std::string> rows;
    EXPECT_THAT(List({}, &rows), HasCode(grpc::OK));
    return rows;
  }

  // A call with a body of our own making.
  grpc::Status CallWithBody(const std::string& method, const std::string& body) {
    grpc::GenericStub stub(channel_);
    const grpc::Slice slice(body);
    const grpc::ByteBuffer request(&slice, 1);
    grpc::ByteBuffer response;
    grpc::ClientContext context;
    Prepare(&context);
    std::promise<grpc::Status> result;
    stub.UnaryCall(&context, method, grpc::StubOptions(), &request, &response,
                   [&result](const grpc::Status& status) { result.set_value(status); });
    return result.get_future().get();
  }

  // Each call that takes a name, with `name` in the place of each.
  std::vector<std::pair<std::string, grpc::Status>> CallsWithName(const std::string& name) {
    std::vector<std::pair<std::string, grpc::Status>> results;
    const auto add = [&results](const char* call, const grpc::Status& status) {
      results.emplace_back(call, status);
    };
    add("Stat", Stat(name));
    add("Mounts", Mounts(name));
    add("Usage", Usage(name));
    add("Prepare", Prepare(name, ""));
    add("Prepare on base", Prepare(name, "base"));
    add("View", View(name, "base"));
    add("Commit as", Commit(name, "active"));
    add("Commit of", Commit("new", name));
    add("Remove", Remove(name));
    add("Update", Update(name, {}));
    if (!name.empty()) {  // no parent is no error
      add("Prepare from", Prepare("new", name));
      add("View from", View("new", name));
    }
    return results;
  }

  void ExpectRefusedAsName(const std::string& name) {
    for (const auto& [call, status] : CallsWithName(name)) {
      EXPECT_THAT(status, HasCode(grpc::INVALID_ARGUMENT)) << call;
    }
  }

  [[nodiscard]] UniqueFd Connect() const {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, socket_.c_str(), sizeof(address.sun_path) - 1);
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0)
        << std::strerror(errno);
    return fd;
  }

  // A connection on which `bytes` were sent, as far as the server took them.
  [[nodiscard]] UniqueFd ConnectAndSend(const std::string& bytes) const {
    UniqueFd fd = Connect();
    size_t sent = 0;
    while (sent < bytes.size()) {
      pollfd polled = {.fd = fd.get(), .events = POLLOUT, .revents = 0};
      if (::poll(&polled, 1, /*timeout=*/1000) <= 0) {
        break;  // it reads no more of this, which is fine
      }
      const ssize_t count =
          ::send(fd.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count < 0) {
        break;  // it has hung up, which is fine too
      }
      sent += static_cast<size_t>(count);
    }
    return fd;
  }

  // Whether the server begins its side of HTTP/2 on `fd`.
  static bool Greets(const UniqueFd& fd) {
    std::string header(9, '\0');
    size_t have = 0;
    while (have < header.size()) {
      pollfd polled = {.fd = fd.get(), .events = POLLIN, .revents = 0};
      const ssize_t count =
          ::poll(&polled, 1, static_cast<int>(std::chrono::milliseconds(kLimit).count())) == 1
              ? ::recv(fd.get(), header.data() + have, header.size() - have, 0)
              : -1;
      if (count <= 0) {
        return false;
      }
      have += static_cast<size_t>(count);
    }
    constexpr char kSettingsFrame = 4;
    return header[3] == kSettingsFrame;
  }

  [[nodiscard]] size_t OpenFiles() const {
    const std::filesystem::path folder = "/proc/" + std::to_string(server_->pid()) + "/fd";
    std::error_code error;
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder, error),
                                             std::filesystem::directory_iterator()));
  }

  TempDir directory_;
  const std::string socket_ = directory_.Join("s.sock");
  std::optional<ServerProcess> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<wire::Snapshots::Stub> stub_;
  std::vector<std::string> before_;
};

TEST_P(BadCallsTest, EmptyNamesAreInvalid) {
  ExpectRefusedAsName("");
}

TEST_P(BadCallsTest, OversizedNamesAreInvalid) {
  ExpectRefusedAsName(std::string(kLongestName + 1, 'n'));
  ExpectRefusedAsName(std::string(size_t{4} << 20, 'n'));
}

TEST_P(BadCallsTest, NamesWithNulAreInvalid) {
  ExpectRefusedAsName(std::string("a\0b", 3));
}

TEST_P(BadCallsTest, NamesOf40KilobytesAreNames) {
  const std::string name(40'000, 'n');
  EXPECT_THAT(Stat(name), HasCode(grpc::NOT_FOUND));
  EXPECT_THAT(Prepare(name, ""), HasCode(grpc::OK));
  EXPECT_THAT(Prepare(name, ""), HasCode(grpc::ALREADY_EXISTS));
  EXPECT_THAT(Mounts(name), HasCode(grpc::OK));
  EXPECT_THAT(Usage(name), HasCode(grpc::OK));
  EXPECT_THAT(Commit(name + "c", name), HasCode(grpc::OK));
  EXPECT_THAT(View(name, name + "c"), HasCode(grpc::OK));
  EXPECT_THAT(Remove(name), HasCode(grpc::OK));
  EXPECT_THAT(Remove(name + "c"), HasCode(grpc::OK));
}

TEST_P(BadCallsTest, NamesThatLookLikePathsStayNames) {
  for (const std::string name : {"..", "/", "../../etc", "a/b", "\x1b[0m\n", "\xe2\x80\xae"}) {
    EXPECT_THAT(Prepare(name, "base"), HasCode(grpc::OK));
    EXPECT_THAT(Mounts(name), HasCode(grpc::OK));
    EXPECT_THAT(Remove(name), HasCode(grpc::OK));
  }
}

TEST_P(BadCallsTest, BrokenUtf8IsInvalid) {
  const std::string broken("\xff\xfe broken \xc3");
  for (const char* method : {"Stat", "Mounts", "Usage", "Prepare", "View", "Remove"}) {
    EXPECT_THAT(CallWithBody(kService + std::string(method), Field(2, broken)),
                HasCode(grpc::INVALID_ARGUMENT))
        << method;
  }
  EXPECT_THAT(CallWithBody(kService + std::string("Commit"), Field(2, broken) + Field(3, "active")),
              HasCode(grpc::INVALID_ARGUMENT));
  EXPECT_THAT(CallWithBody(kService + std::string("Commit"), Field(2, "new") + Field(3, broken)),
              HasCode(grpc::INVALID_ARGUMENT));
  EXPECT_THAT(CallWithBody(kService + std::string("Update"), Field(2, Field(1, broken))),
              HasCode(grpc::INVALID_ARGUMENT));
  for (const std::string& body : {Field(2, "new") + Field(3, broken),
                                  Field(2, "new") + Field(4, Field(1, broken) + Field(2, "value")),
                                  Field(2, "new") + Field(4, Field(1, "key") + Field(2, broken))}) {
    EXPECT_THAT(CallWithBody(kService + std::string("Prepare"), body),
                HasCode(grpc::INVALID_ARGUMENT));
  }
}

TEST_P(BadCallsTest, UnknownParentsAreNotFound) {
  EXPECT_THAT(Prepare("new", "nobody"), HasCode(grpc::NOT_FOUND));
  EXPECT_THAT(View("new", "nobody"), HasCode(grpc::NOT_FOUND));
  EXPECT_THAT(Prepare("new", "active"), HasCode(grpc::INVALID_ARGUMENT));
  EXPECT_THAT(View("new", "active"), HasCode(grpc::INVALID_ARGUMENT));
  EXPECT_THAT(Prepare("active", "nobody"), HasCode(grpc::NOT_FOUND));
}

TEST_P(BadCallsTest, UnknownNamesAreNotFoundEverywhere) {
  for (const auto& [call, status] :
       {std::pair("Stat", Stat("nobody")), std::pair("Mounts", Mounts("nobody")),
        std::pair("Usage", Usage("nobody")), std::pair("Commit", Commit("new", "nobody")),
        std::pair("Remove", Remove("nobody")), std::pair("Update", Update("nobody", {}))}) {
    EXPECT_THAT(status, HasCode(grpc::NOT_FOUND)) << call;
  }
}

TEST_P(BadCallsTest, SnapshotsInTheWrongStateAreRefused) {
  EXPECT_THAT(Mounts("base"), HasCode(grpc::FAILED_PRECONDITION));
  EXPECT_THAT(Commit("new", "base"), HasCode(grpc::FAILED_PRECONDITION));
  EXPECT_THAT(Commit("base", "active"), HasCode(grpc::ALREADY_EXISTS));
}

TEST_P(BadCallsTest, BadFiltersAreInvalidBeforeAnyRow) {
  const std::vector<std::string> filters = {"name==",
                                            "name=~[",
                                            "name==\"open",
                                            "==a",
                                            "kind==active,,",
                                            "a=b",
                                            "labels.\"x",
                                            std::string(1'000'000, 'x') + "!",
                                            "\x01"};
  for (const std::string& filter : filters) {
    std::vector<std::string> rows;
    EXPECT_THAT(List({filter}, &rows), HasCode(grpc::INVALID_ARGUMENT)) << filter.substr(0, 50);
    EXPECT_THAT(List({"kind==active", filter}, &rows), HasCode(grpc::INVALID_ARGUMENT));
    EXPECT_EQ(rows.size(), 0U);
  }
}

// As in containerd, whose filters compile when they are matched.
TEST_P(BadCallsTest, BrokenRegularExpressionsMatchNothing) {
  for (const std::string& filter : {std::string("name~=("), "name~=" + std::string(100'000, '(')}) {
    std::vector<std::string> rows;
    EXPECT_THAT(List({filter}, &rows), HasCode(grpc::OK)) << filter.substr(0, 50);
    EXPECT_EQ(rows.size(), 0U);
  }
}

TEST_P(BadCallsTest, BadMasksAreInvalidAndChangeNothing) {
  for (const std::string path : {"name", "parent", "kind", "created_at", "Labels", "labels.", "",
                                 "labelsx", "*", "labels,name", "info.labels"}) {
    EXPECT_THAT(Update("base", {path}), HasCode(grpc::INVALID_ARGUMENT)) << path;
    EXPECT_THAT(Update("base", {"labels", path}), HasCode(grpc::INVALID_ARGUMENT)) << path;
  }
}

TEST_P(BadCallsTest, UpdateWithoutInfoIsInvalid) {
  EXPECT_THAT(Update({}), HasCode(grpc::INVALID_ARGUMENT));
  wire::UpdateSnapshotRequest request;
  request.mutable_update_mask()->add_paths("labels");
  EXPECT_THAT(Update(request), HasCode(grpc::INVALID_ARGUMENT));
  request.mutable_info();
  EXPECT_THAT(Update(request), HasCode(grpc::INVALID_ARGUMENT));
}

TEST_P(BadCallsTest, EmptyRequestsAreInvalid) {
  for (const char* method :
       {"Stat", "Mounts", "Usage", "Prepare", "View", "Commit", "Remove", "Update"}) {
    EXPECT_THAT(CallWithBody(kService + std::string(method), ""), HasCode(grpc::INVALID_ARGUMENT))
        << method;
  }
}

TEST_P(BadCallsTest, LabelsThatAreTooLargeAreInvalid) {
  wire::UpdateSnapshotRequest request;
  request.mutable_info()->set_name("base");
  (*request.mutable_info()->mutable_labels())["key"] = std::string(size_t{2} << 20, 'v');
  EXPECT_THAT(Update(request), HasCode(grpc::INVALID_ARGUMENT));
  request.mutable_info()->mutable_labels()->clear();
  (*request.mutable_info()->mutable_labels())[""] = "value";
  EXPECT_THAT(Update(request), HasCode(grpc::INVALID_ARGUMENT));
}

TEST_P(BadCallsTest, MessagesAbove16MebibytesAreRefused) {
  EXPECT_THAT(Stat(std::string(kMessageLimit, 'n')), HasCode(grpc::RESOURCE_EXHAUSTED));
  EXPECT_THAT(Prepare(std::string(2 * kMessageLimit, 'n'), ""), HasCode(grpc::RESOURCE_EXHAUSTED));
  // Just below, it is the name that is refused.
  EXPECT_THAT(Stat(std::string(kMessageLimit - 64, 'n')), HasCode(grpc::INVALID_ARGUMENT));
}

TEST_P(BadCallsTest, UnknownMethodsAndServicesAreUnimplemented) {
  EXPECT_THAT(CallWithBody(kService + std::string("Destroy"), ""), HasCode(grpc::UNIMPLEMENTED));
  EXPECT_THAT(CallWithBody("/containerd.services.snapshots.v2.Snapshots/Stat", ""),
              HasCode(grpc::UNIMPLEMENTED));
  EXPECT_THAT(CallWithBody("nothing", ""), HasCode(grpc::UNIMPLEMENTED));
}

TEST_P(BadCallsTest, BodiesThatAreNoMessagesAreRefused) {
  std::minstd_rand random(1);
  for (const std::string& body :
       {std::string("\xff\xff\xff\xff"), std::string("\x12\xff\xff\xff\xff\x0f"),
        std::string(1000, '\xff'), Field(2, "key").substr(0, 3)}) {
    for (const char* method : {"Stat", "Prepare", "Update", "List", "Cleanup"}) {
      EXPECT_FALSE(CallWithBody(kService + std::string(method), body).ok()) << method;
    }
  }
  for (int i = 0; i < 500; ++i) {
    std::string body(random() % 200, '\0');
    for (char& byte : body) {
      byte = static_cast<char>(random());
    }
    // By chance one may be a message; nothing is there under such a name.
    EXPECT_FALSE(CallWithBody(kService + std::string("Stat"), body).ok());
  }
}

TEST_P(BadCallsTest, HeadersThatAreTooLargeFailTheirCall) {
  // On a connection of its own, which may be lost with it.
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto stub = wire::Snapshots::NewStub(
      grpc::CreateCustomChannel("unix:" + socket_, grpc::InsecureChannelCredentials(), arguments));
  wire::StatSnapshotRequest request;
  request.set_key("base");
  wire::StatSnapshotResponse response;
  grpc::ClientContext context;
  Prepare(&context);
  context.AddMetadata("containerd-namespace", std::string(200'000, 'n'));
  EXPECT_FALSE(stub->Stat(&context, request, &response).ok());
}

TEST_P(BadCallsTest, GarbageInsteadOfHttp2IsDropped) {
  std::minstd_rand random(2);
  std::string noise(1 << 20, '\0');
  for (char& byte : noise) {
    byte = static_cast<char>(random());
  }
  const std::string settings_of_16_mebibytes("\xff\xff\xff\4\0\0\0\0\0", 9);
  const std::string headers_of_stream_0("\0\0\1\1\4\0\0\0\0\x82", 10);
  const std::string data_of_no_stream("\0\0\1\0\0\0\0\0\7x", 10);
  const std::string window_overflow("\0\0\4\x08\0\0\0\0\0\x7f\xff\xff\xff", 13);
  const std::string hpack_bomb("\0\0\5\1\4\0\0\0\1\xff\xff\xff\xff\xff", 14);
  for (const std::string& bytes :
       {std::string("GET / HTTP/1.1\r\nHost: strata\r\n\r\n"), std::string("\x16\x03\x01\x02\0", 5),
        std::string(1, '\0'), noise, kPreface + noise, kPreface + kEmptySettings + noise,
        kPreface + settings_of_16_mebibytes + noise,
        kPreface + kEmptySettings + headers_of_stream_0,
        kPreface + kEmptySettings + data_of_no_stream, kPreface + kEmptySettings + window_overflow,
        kPreface + kEmptySettings + hpack_bomb}) {
    const UniqueFd fd = ConnectAndSend(bytes);
    EXPECT_THAT(Stat("base"), HasCode(grpc::OK));
  }
  EXPECT_THAT(Stat("base"), HasCode(grpc::OK));
}

TEST_P(BadCallsTest, HalfOpenConnectionsHoldNobodyUp) {
  const size_t before = OpenFiles();
  {
    std::vector<UniqueFd> open;
    for (int i = 0; i < 100; ++i) {
      open.push_back(ConnectAndSend(""));
      open.push_back(ConnectAndSend(kPreface.substr(0, 5)));
      open.push_back(ConnectAndSend(kPreface));
      open.push_back(ConnectAndSend(kPreface + kEmptySettings.substr(0, 4)));
      open.push_back(ConnectAndSend(kPreface + kEmptySettings));
      EXPECT_EQ(::shutdown(open.back().get(), SHUT_WR), 0);
    }
    EXPECT_THAT(Prepare("new", "base"), HasCode(grpc::OK));
    EXPECT_THAT(Remove("new"), HasCode(grpc::OK));
    // As a new client would come.
    const auto channel = grpc::CreateChannel("unix:" + socket_, grpc::InsecureChannelCredentials());
    EXPECT_TRUE(channel->WaitForConnected(std::chrono::system_clock::now() + kLimit));
  }
  const auto limit = std::chrono::steady_clock::now() + kLimit;
  while (OpenFiles() > before + 4 && std::chrono::steady_clock::now() < limit) {
    EXPECT_THAT(Stat("base"), HasCode(grpc::OK));
  }
  EXPECT_LE(OpenFiles(), before + 4) << "descriptors of connections that are gone";
}

TEST_P(BadCallsTest, ConnectionsThatBreakInACallAreForgotten) {
  // HEADERS with :method POST, :scheme http and :path of a call, and the connection is gone.
  const std::string path = kService + std::string("Prepare");
  std::string block("\x83\x86\x04", 3);
  block += static_cast<char>(path.size());
  block += path;
  std::string frame("\0\0", 2);
  frame += static_cast<char>(block.size());
  frame += std::string("\1\4\0\0\0\1", 6) + block;
  for (int i = 0; i < 200; ++i) {
    const UniqueFd fd = ConnectAndSend(kPreface + kEmptySettings + frame);
  }
  EXPECT_THAT(Stat("base"), HasCode(grpc::OK));
}

TEST_P(BadCallsTest, FiveHundredConnectionsAtOnceAreAllServed) {
  std::vector<UniqueFd> open;
  for (int i = 0; i < kConnections; ++i) {
    open.push_back(ConnectAndSend(kPreface + kEmptySettings));
  }
  for (const UniqueFd& fd : open) {
    EXPECT_TRUE(Greets(fd));
  }
  EXPECT_THAT(Stat("base"), HasCode(grpc::OK));
}

INSTANTIATE_TEST_SUITE_P(Daemon, BadCallsTest, ::testing::Values("native", "overlayfs"),
                         [](const auto& one) { return one.param; });

}  // namespace
}  // namespace strata::testing
