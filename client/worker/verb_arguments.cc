// SPDX-License-Identifier: Apache-2.0
#include "client/worker/verb_arguments.h"

#include <sstream>

#include "client/worker/flags.h"

namespace strata {

VerbArguments::VerbArguments(const std::string& verb, const std::string& description)
    : app_(description, "strata-worker " + verb) {}

void VerbArguments::AddTexts(const std::string& name, std::vector<std::string>* field,
                             const std::string& help, const std::string& type) {
  app_.add_option(name, *field, help)->type_name(type)->allow_extra_args(false);
}

StatusOr<std::optional<VerbUsage>> VerbArguments::Read(const std::vector<std::string>& arguments) {
  if (rest_ != nullptr) {
    app_.prefix_command();
  }
  // CLI11 throws; this is the only place of the verbs that sees it.
  try {
    app_.parse(ForCli(arguments));
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    std::ostringstream message;
    if (app_.exit(error, out, message) == 0) {
      return std::optional<VerbUsage>({.text = out.str()});
    }
    return MakeStatus(StatusCode::kInvalidArgument,
                      app_.get_name() + ": " + error.what() + " (see --help)");
  }
  if (rest_ != nullptr) {
    for (const std::string& word : app_.remaining()) {
      rest_->push_back(FromCli(word));
    }
    if (!rest_->empty() && rest_->front() == "--") {
      rest_->erase(rest_->begin());
    } else if (!rest_->empty() && rest_->front().starts_with('-')) {
      return MakeStatus(StatusCode::kInvalidArgument,
                        app_.get_name() + ": unknown flag " + rest_->front() + " (see --help)");
    }
  }
  return std::optional<VerbUsage>();
}

}  // namespace strata
