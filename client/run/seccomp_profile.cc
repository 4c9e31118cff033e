// SPDX-License-Identifier: Apache-2.0
#include "client/run/seccomp_profile.h"

#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <vector>

namespace strata {
namespace {

using Json = nlohmann::json;
using Names = std::vector<std::string_view>;

// Between blanks. Names that an architecture does not have are no error: runtimes skip them.
constexpr std::string_view kAllowed =
    "accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown "
    "chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime "
    "clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect "
    "copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old "
    "epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit "
    "exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir "
    "fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr "
    "flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 "
    "fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv "
    "futex_wake futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 "
    "getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer "
    "getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 "
    "getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt gettid "
    "gettimeofday getuid getuid32 getxattr inotify_add_watch inotify_init inotify_init1 "
    "inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 "
    "io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule "
    "landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat "
    "listen listxattr llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise "
    "map_shadow_stack membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat "
    "mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr mq_notify mq_open mq_timedreceive "
    "mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap msgctl msgget "
    "msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat "
    "_newselect open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc "
    "pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 "
    "process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead "
    "readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages "
    "removexattr rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction "
    "rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait "
    "rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min "
    "sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval "
    "sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam "
    "sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop "
    "semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list "
    "set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 "
    "setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid "
    "setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid "
    "setuid32 setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 "
    "sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statx "
    "symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create "
    "timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 "
    "timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times "
    "tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat utime utimensat "
    "utimensat_time64 utimes vfork vmsplice wait4 waitid waitpid write writev";

struct OfCapability {
  std::string_view capability;
  Names names;
};

const std::vector<OfCapability>& ByCapability() {
  static const auto* const table = new std::vector<OfCapability>{
      {"CAP_DAC_READ_SEARCH", {"open_by_handle_at"}},
      {"CAP_SYS_ADMIN",
       {"bpf",           "clone",         "clone3",      "fanotify_init",   "fsconfig",
        "fsmount",       "fsopen",        "fspick",      "lookup_dcookie",  "mount",
        "mount_setattr", "move_mount",    "open_tree",   "perf_event_open", "quotactl",
        "quotactl_fd",   "setdomainname", "sethostname", "setns",           "syslog",
        "umount",        "umount2",       "unshare"}},
      {"CAP_SYS_BOOT", {"reboot"}},
      {"CAP_SYS_CHROOT", {"chroot"}},
      {"CAP_SYS_MODULE", {"delete_module", "finit_module", "init_module"}},
      {"CAP_SYS_PACCT", {"acct"}},
      {"CAP_SYS_PTRACE",
       {"kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev",
        "ptrace"}},
      {"CAP_SYS_RAWIO", {"ioperm", "iopl"}},
      {"CAP_SYS_TIME", {"clock_settime", "clock_settime64", "settimeofday", "stime"}},
      {"CAP_SYS_TTY_CONFIG", {"vhangup"}},
      {"CAP_SYS_NICE", {"get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"}},
      {"CAP_SYSLOG", {"syslog"}},
      {"CAP_BPF", {"bpf"}},
      {"CAP_PERFMON", {"perf_event_open"}},
  };
  return *table;
}

struct Architecture {
  std::string_view name;
  Names filters;             // what programs on it may be built for, itself first
  std::vector<Names> extra;  // groups of calls that only it has
};

const std::vector<Architecture>& Architectures() {
  static const auto* const table = new std::vector<Architecture>{
      {"amd64",
       {"SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"},
       {{"arch_prctl"}, {"modify_ldt"}}},
      {"386", {"SCMP_ARCH_X86"}, {{"modify_ldt"}}},
      {"arm64",
       {"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"},
       {{"arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls",
         "sync_file_range2"}}},
      {"arm",
       {"SCMP_ARCH_ARM"},
       {{"arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls",
         "sync_file_range2"}}},
      {"ppc64le", {"SCMP_ARCH_PPC64LE"}, {{"swapcontext", "sync_file_range2"}}},
      {"riscv64", {"SCMP_ARCH_RISCV64"}, {{"riscv_flush_icache"}}},
      {"s390x",
       {"SCMP_ARCH_S390X", "SCMP_ARCH_S390"},
       {{"s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"}}},
  };
  return *table;
}

Json Allow(const Names& names) {
  Json list = Json::array();
  for (const std::string_view name : names) {
    list.push_back(std::string(name));
  }
  return {{"names", std::move(list)}, {"action", "SCMP_ACT_ALLOW"}};
}

Json AllowWhen(std::string_view name, unsigned index, uint64_t value, const char* comparison) {
  Json rule = Allow(Names{name});
  rule["args"] = Json::array({{{"index", index}, {"value", value}, {"op", comparison}}});
  return rule;
}

Names Split(std::string_view list) {
  Names names;
  while (!list.empty()) {
    const size_t end = std::min(list.find(' '), list.size());
    names.push_back(list.substr(0, end));
    list.remove_prefix(std::min(end + 1, list.size()));
  }
  return names;
}

// Plain processes and threads, but no namespace.
Json AllowPlainClone(std::string_view architecture) {
  constexpr uint64_t kNamespaces = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |
                                   CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWCGROUP;
  // clone(2): on s390 the flags are the second argument.
  const unsigned index = architecture == "s390x" ? 1 : 0;
  return AllowWhen("clone", index, kNamespaces, "SCMP_CMP_MASKED_EQ");
}

}  // namespace

std::string_view HostArchitecture() {
#if defined(__x86_64__)
  return "amd64";
#elif defined(__i386__)
  return "386";
#elif defined(__aarch64__)
  return "arm64";
#elif defined(__arm__)
  return "arm";
#elif defined(__powerpc64__)
  return "ppc64le";
#elif defined(__riscv)
  return "riscv64";
#elif defined(__s390x__)
  return "s390x";
#else
#error "an architecture without a seccomp table"
#endif
}

Json SeccompProfile(std::string_view architecture, std::span<const std::string> capabilities) {
  Json profile = {{"defaultAction", "SCMP_ACT_ERRNO"}};
  Json rules = Json::array();
  rules.push_back(Allow(Split(kAllowed)));
  rules.push_back(Allow(Names{"process_vm_readv", "process_vm_writev", "ptrace"}));
  rules.push_back(AllowWhen("socket", 0, AF_VSOCK, "SCMP_CMP_NE"));  // it leads out to the host
  // personality(2): Linux, and Linux with a 32-bit or 2.6 uname; the last asks only.
  for (const uint64_t value : {0x0U, 0x8U, 0x20000U, 0x20008U, 0xffffffffU}) {
    rules.push_back(AllowWhen("personality", 0, value, "SCMP_CMP_EQ"));
  }
  for (const Architecture& known : Architectures()) {
    if (known.name == architecture) {
      profile["architectures"] = known.filters;
      for (const Names& names : known.extra) {
        rules.push_back(Allow(names));
      }
    }
  }
  const auto has = [&](std::string_view capability) {
    return std::find(capabilities.begin(), capabilities.end(), capability) != capabilities.end();
  };
  for (const OfCapability& of : ByCapability()) {
    if (has(of.capability)) {
      rules.push_back(Allow(of.names));
    }
  }
  if (!has("CAP_SYS_ADMIN")) {
    rules.push_back(AllowPlainClone(architecture));
    // Its flags lie in memory, where no filter can look.
    rules.push_back({{"names", {"clone3"}}, {"action", "SCMP_ACT_ERRNO"}, {"errnoRet", ENOSYS}});
  }
  profile["syscalls"] = std::move(rules);
  return profile;
}

}  // namespace strata
