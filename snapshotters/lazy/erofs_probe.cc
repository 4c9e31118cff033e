// SPDX-License-Identifier: Apache-2.0
#include "snapshotters/lazy/erofs_probe.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <thread>
#include <utility>

#include "snapshotters/base/file_at.h"
#include "snapshotters/base/log.h"
#include "snapshotters/base/unique_fd.h"
#include "snapshotters/lazy/erofs_mount.h"
#include "snapshotters/lazy/erofs_writer.h"
#include "snapshotters/os/fanotify_group.h"
#include "snapshotters/os/mount_ops.h"
#include "snapshotters/os/open_elsewhere.h"
#include "snapshotters/os/tree_remove.h"

namespace strata {
namespace {

constexpr std::chrono::seconds kLimit{
    10};  // ends a hang; a busy machine is not to lose the presenter
constexpr std::string_view kFileName = "file";
constexpr std::string_view kContent = "what the kernel shall find where the hole was";
constexpr mode_t kMode = 0700;

Status Failed(std::string_view step, const Status& why) {
  return MakeStatus(StatusCode::kUnimplemented,
                    std::string(step) + ": " + std::string(StatusMessage(why)));
}

Status Wrong(std::string_view what) {
  return MakeStatus(StatusCode::kUnimplemented, what);
}

class Probe {
 public:
  explicit Probe(std::string directory) : directory_(std::move(directory)) {}

  ~Probe() {
    group_ = FanotifyGroup();  // whoever still waits is let through
    if (is_mounted_) {
      // Lazy: a reader that was late may just have closed its file.
      LogFailure(Unmount(target(), /*lazy=*/true));
    }
    LogFailure(RemoveTree(AT_FDCWD, directory_));
  }
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  Status RunComplete() {
    if (const Status status = MakeImage(); !status.ok()) {
      return Failed("make a small image", status);
    }
    if (const Status status = Fill(); !status.ok()) {
      return Failed("make a small image", status);
    }
    if (const Status status = MountErofsImage(image_path(), target()); !status.ok()) {
      return Failed("mount the image", status);
    }
    is_mounted_ = true;
    const StatusOr<std::string> found = ReadFile();
    if (!found.ok()) {
      return Failed("read a file of the mount", found.status());
    }
    return *found == kContent ? OkStatus() : Wrong("other bytes were read than were written");
  }

  Status Run() {
    if (const Status status = MakeImage(); !status.ok()) {
      return Failed("make a small image", status);
    }
    StatusOr<FanotifyGroup> group = FanotifyGroup::Create();
    if (!group.ok()) {
      return Failed("ask for events", group.status());
    }
    group_ = *std::move(group);
    if (const Status status = group_.Mark(image_.get()); !status.ok()) {
      return Failed("ask for events of a file", status);
    }
    if (const Status status = MountErofsImage(image_path(), target()); !status.ok()) {
      return Failed("mount the image", status);
    }
    is_mounted_ = true;
    if (const Status status = ReadThroughMount(); !status.ok()) {
      return Failed("read a file of the mount", status);
    }
    if (const Status status = TakeOver(); !status.ok()) {
      return Failed("take over the descriptor of an event", status);
    }
    if (const Status status = CheckUse(); !status.ok()) {
      return Failed("ask whether the image is in use", status);
    }
    return OkStatus();
  }

 private:
  using Answerer = std::function<Status(const FanotifyGroup::Event&)>;

  [[nodiscard]] std::string image_path() const { return directory_ + "/image"; }
  [[nodiscard]] std::string target() const { return directory_ + "/mount"; }

  static void LogFailure(const Status& status) {
    if (!status.ok()) {
      LogWarn("probe leaves something behind, ignoring",
              {{"error", std::string(StatusMessage(status))}});
    }
  }

  Status MakeImage() {
    STRATA_RETURN_IF_ERROR(RemoveTree(AT_FDCWD, directory_));  // what a crash has left
    STRATA_RETURN_IF_ERROR(MakePath(target(), kMode));
    STRATA_ASSIGN_OR_RETURN(image_, OpenFile(image_path(), O_RDWR | O_CREAT | O_EXCL, 0600));
    STRATA_ASSIGN_OR_RETURN(std::unique_ptr<ErofsBuilder> builder, ErofsBuilder::Create({}));
    STRATA_ASSIGN_OR_RETURN(
        const uint32_t index,
        builder->Add(kFileName, {.mode = S_IFREG | 0600, .size = kContent.size()}, "", {}));
    STRATA_ASSIGN_OR_RETURN(const ErofsLayout layout, builder->Finish(image_.get()));
    data_offset_ = layout.data_offset[index];
    return OkStatus();
  }

  // Runs `work`, which may wait for events, in a thread of its own, and answers what comes
  // meanwhile. How many came.
  StatusOr<int> WhileAnswering(const std::function<Status()>& work, const Answerer& answer) {
    const UniqueFd ended(::eventfd(0, EFD_CLOEXEC));
    if (!ended.valid()) {
      return ErrnoStatus(errno, "make an eventfd");
    }
    Status worked;
    std::thread worker([&] {
      worked = work();
      const uint64_t one = 1;
      (void)!::write(ended.get(), &one, sizeof(one));  // fails for an overflow only
    });
    StatusOr<int> events = AnswerUntil(ended.get(), answer);
    if (!events.ok()) {
      group_ = FanotifyGroup();  // lets the worker go
    }
    worker.join();
    if (events.ok() && !worked.ok()) {
      return worked;
    }
    return events;
  }

  StatusOr<int> AnswerUntil(int ended_fd, const Answerer& answer) {
    for (int events = 0;; ++events) {
      std::array<pollfd, 2> polled = {pollfd{group_.fd(), POLLIN, 0}, pollfd{ended_fd, POLLIN, 0}};
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
          deadline_ - std::chrono::steady_clock::now());
      const int ready = ::poll(polled.data(), polled.size(),
                               static_cast<int>(std::max<int64_t>(0, left.count())));
      if (ready < 0 && errno != EINTR) {
        return ErrnoStatus(errno, "wait for an event");
      }
      if (ready == 0) {
        return Wrong("it takes longer than 2 seconds");
      }
      if ((polled[0].revents & POLLIN) == 0) {
        if ((polled[1].revents & POLLIN) != 0) {
          return events;
        }
        continue;
      }
      alignas(8) std::array<std::byte, FanotifyGroup::kEventBytes> buffer{};
      STRATA_ASSIGN_OR_RETURN(const FanotifyGroup::Event event, group_.Read(buffer));
      const UniqueFd fd(event.fd);
      if (const Status status = answer(event); !status.ok()) {
        (void)group_.Deny(event.fd);  // the first error is the one to report
        return status;
      }
      STRATA_RETURN_IF_ERROR(group_.Allow(event.fd));
    }
  }

  // The bytes of the file, where the hole is.
  [[nodiscard]] Status Fill() const {
    return ::pwrite(image_.get(), kContent.data(), kContent.size(),
                    static_cast<off_t>(data_offset_)) == static_cast<ssize_t>(kContent.size())
               ? OkStatus()
               : ErrnoStatus(errno, "fill the hole");
  }

  [[nodiscard]] StatusOr<std::string> ReadFile() const {
    STRATA_ASSIGN_OR_RETURN(const UniqueFd file,
                            OpenFile(target() + "/" + std::string(kFileName), O_RDONLY));
    return ReadAll(file.get(), "file", kContent.size());
  }

  Status ReadThroughMount() {
    std::string found(kContent.size() + 1, '\0');
    const auto read = [&]() -> Status {
      STRATA_ASSIGN_OR_RETURN(found, ReadFile());
      return OkStatus();
    };
    const auto fill = [&](const FanotifyGroup::Event& event) -> Status {
      if (event.bytes != 0 &&
          (event.offset + event.bytes <= data_offset_ || event.offset > data_offset_)) {
        return OkStatus();  // of metadata, which are there
      }
      is_filled_ = true;
      return Fill();
    };
    STRATA_RETURN_IF_ERROR(WhileAnswering(read, fill).status());
    if (!is_filled_) {
      return Wrong("no event came: the kernel reads the image without asking");
    }
    return found == kContent ? OkStatus() : Wrong("other bytes were read than were written");
  }

  Status TakeOver() {
    STRATA_ASSIGN_OR_RETURN(const UniqueFd plain, OpenFile(image_path(), O_RDWR));
    UniqueFd taken;
    const auto read = [](int fd) -> Status {
      char byte = 0;
      return ::pread(fd, &byte, 1, 0) == 1 ? OkStatus() : ErrnoStatus(errno, "read the image");
    };
    const auto take = [&](const FanotifyGroup::Event& event) -> Status {
      if (event.pid != ::getpid()) {
        return Wrong("the event names another process than the one that reads");
      }
      taken = UniqueFd(::fcntl(event.fd, F_DUPFD_CLOEXEC, 0));
      return taken.valid() ? OkStatus() : ErrnoStatus(errno, "duplicate it");
    };
    STRATA_RETURN_IF_ERROR(WhileAnswering([&] { return read(plain.get()); }, take).status());
    if (!taken.valid()) {
      return Wrong("no event came of a read of the image itself");
    }
    STRATA_ASSIGN_OR_RETURN(const int events,
                            WhileAnswering([&] { return read(taken.get()); },
                                           [](const FanotifyGroup::Event&) { return OkStatus(); }));
    return events == 0 ? OkStatus() : Wrong("its reads raise events");
  }

  Status CheckUse() {
    STRATA_ASSIGN_OR_RETURN(const bool is_used, IsOpenElsewhere(image_.get()));
    if (!is_used) {
      return Wrong("the kernel says that it is not, while it is mounted");
    }
    STRATA_RETURN_IF_ERROR(Unmount(target(), /*lazy=*/false));
    is_mounted_ = false;
    return OkStatus();
  }

  const std::string directory_;
  const std::chrono::steady_clock::time_point deadline_ = std::chrono::steady_clock::now() + kLimit;
  UniqueFd image_;  // opened before the file is marked: raises no events
  uint64_t data_offset_ = 0;
  FanotifyGroup group_;
  bool is_mounted_ = false;
  bool is_filled_ = false;
};

}  // namespace

Status ProbeErofs(const std::string& directory) {
  return Annotate(Probe(directory).Run(), "probe EROFS with events");
}

Status ProbeErofsFile(const std::string& directory) {
  return Annotate(Probe(directory).RunComplete(), "probe EROFS from a file");
}

}  // namespace strata
