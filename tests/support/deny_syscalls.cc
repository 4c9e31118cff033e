// SPDX-License-Identifier: Apache-2.0
//
// deny_syscalls NAME[,NAME...] -- PROGRAM ARGS...: runs PROGRAM as on a kernel without these system
// calls (ENOSYS), so that tests reach the ways around them. PROGRAM sees the names in
// STRATA_TEST_DENIED_SYSCALLS. For tests only.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace {

// As env(1) and timeout(1) report their own failures.
constexpr int kOwnFailure = 125;

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
#error "name the AUDIT_ARCH of this machine"
#endif

struct NamedCall {
  std::string_view name;
  uint32_t number;
};

constexpr std::array kCalls = {
    NamedCall{"fanotify_init", SYS_fanotify_init},
    NamedCall{"fsopen", SYS_fsopen},
    NamedCall{"move_mount", SYS_move_mount},
    NamedCall{"open_tree", SYS_open_tree},
    NamedCall{"openat2", SYS_openat2},
};

std::optional<uint32_t> NumberOf(std::string_view name) {
  for (const NamedCall& call : kCalls) {
    if (call.name == name) {
      return call.number;
    }
  }
  return std::nullopt;
}

int Fail(const std::string& message) {
  (void)std::fprintf(stderr, "deny_syscalls: %s\n", message.c_str());
  return kOwnFailure;
}

// seccomp(2): a program that looks at the number of each system call.
std::vector<sock_filter> Program(const std::vector<uint32_t>& numbers) {
  std::vector<sock_filter> program = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kArchitecture, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
  };
  for (const uint32_t number : numbers) {
    program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1));
    program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  return program;
}

// Empty when a name is not in the table.
std::vector<uint32_t> Numbers(std::string_view names) {
  std::vector<uint32_t> numbers;
  while (true) {
    const size_t comma = names.find(',');
    const std::optional<uint32_t> number = NumberOf(names.substr(0, comma));
    if (!number.has_value()) {
      return {};
    }
    numbers.push_back(*number);
    if (comma == std::string_view::npos) {
      return numbers;
    }
    names.remove_prefix(comma + 1);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4 || std::string_view(argv[2]) != "--") {
    return Fail("expected NAME[,NAME...] -- PROGRAM ARGS...");
  }
  const std::vector<uint32_t> numbers = Numbers(argv[1]);
  if (numbers.empty()) {
    return Fail("'" + std::string(argv[1]) + "': expected fsopen, move_mount, open_tree, openat2");
  }
  std::vector<sock_filter> program = Program(numbers);
  const sock_fprog loaded = {.len = static_cast<uint16_t>(program.size()),
                             .filter = program.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &loaded) != 0 ||
      ::setenv("STRATA_TEST_DENIED_SYSCALLS", argv[1], /*replace=*/1) != 0) {
    return Fail(std::string("set the filter: ") + std::strerror(errno));
  }
  (void)::execvp(argv[3], argv + 3);  // returns only on failure
  return Fail("run '" + std::string(argv[3]) + "': " + std::strerror(errno));
}
