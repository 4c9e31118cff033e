// SPDX-License-Identifier: Apache-2.0
#include "client/stratactl/output.h"

#include <absl/strings/numbers.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

#include "client/stratactl/table.h"

namespace strata {

Terminal Terminal::Real() {
  Terminal terminal{.shows_progress = ::isatty(STDERR_FILENO) != 0};
  winsize size{};
  if (::isatty(STDOUT_FILENO) != 0) {
    constexpr size_t kUsual = 80;
    const char* columns = std::getenv("COLUMNS");
    if (columns == nullptr || !absl::SimpleAtoi(columns, &terminal.columns) ||
        terminal.columns == 0) {
      const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0;
      terminal.columns = known ? size.ws_col : kUsual;
    }
  }
  return terminal;
}

void PrintJson(std::ostream& out, const nlohmann::json& value) {
  out << value.dump(/*indent=*/-1, ' ', /*ensure_ascii=*/true,
                    nlohmann::json::error_handler_t::replace)
      << std::endl;
}

void Progress::Tell(const std::string& text) {
  constexpr std::chrono::seconds kPause{1};
  const auto now = std::chrono::steady_clock::now();
  if (output_.terminal.shows_progress && now - last_ >= kPause) {
    last_ = now;
    output_.err << Printable(text) << std::endl;
  }
}

}  // namespace strata
