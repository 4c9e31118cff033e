// SPDX-License-Identifier: Apache-2.0
#include "client/stratactl/root_commands.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "client/stratactl/table.h"

namespace strata {
namespace {

using Json = nlohmann::json;

// What one repair lets the next check find (a record whose children are gone by now) goes as deep
// as a chain of layers may be long.
constexpr int kMostRounds = 1024;

Json ToJson(const NodeFinding& finding) {
  const RootFinding& found = finding.found;
  return {{"problem", finding.problem}, {"id", found.id},
          {"name", found.name},         {"path", found.path},
          {"size", found.bytes},        {"detail", found.detail},
          {"repair", found.repair},     {"repairable", found.repairable},
          {"harmless", found.harmless}};
}

void Print(const NodeFinding& finding, const Output& output) {
  const RootFinding& found = finding.found;
  output.out << Printable(finding.problem) << ": " << Printable(found.path);
  if (!found.name.empty()) {
    output.out << ", snapshot " << Printable(ShowName(found.name));
  }
  if (found.bytes != 0) {
    output.out << " (" << ShowBytes(found.bytes) << ")";
  }
  output.out << "\n    " << Printable(found.detail) << "\n    "
             << (found.repairable ? "repair: " : "") << Printable(found.repair) << "\n";
}

class FileSystemCheck {
 public:
  FileSystemCheck(Node& node, const Output& output)
      : node_(node), output_(output), progress_(output) {}

  Status Run(bool repair) {
    STRATA_ASSIGN_OR_RETURN(NodeCheck check, node_.Check(progress_));
    bool again = repair;
    Tell(check, {});
    for (int round = 0; again && round < kMostRounds; ++round) {
      STRATA_ASSIGN_OR_RETURN(again, Repair(check));
      if (again) {
        std::vector<NodeFinding> told = std::move(check.findings);
        STRATA_ASSIGN_OR_RETURN(check, node_.Check(progress_));
        Tell(check, told);
      }
    }
    return Conclude(check);
  }

 private:
  // Those that were not told before.
  void Tell(const NodeCheck& check, const std::vector<NodeFinding>& told) {
    for (const NodeFinding& finding : check.findings) {
      const bool is_known = std::any_of(
          told.begin(), told.end(),
          [&finding](const NodeFinding& other) { return other.found == finding.found; });
      if (!is_known && !output_.json) {
        Print(finding, output_);
      }
      if (!is_known) {
        findings_.push_back(ToJson(finding));
      }
    }
  }

  // Whether something was mended.
  StatusOr<bool> Repair(const NodeCheck& check) {
    std::vector<RootFinding> repairable;
    for (const NodeFinding& finding : check.findings) {
      if (finding.found.repairable) {
        repairable.push_back(finding.found);
      }
    }
    if (repairable.empty()) {
      return false;
    }
    STRATA_ASSIGN_OR_RETURN(const std::vector<Status> results, node_.Repair(repairable));
    bool mended = false;
    for (size_t i = 0; i < results.size(); ++i) {
      mended |= results[i].ok();
      Tell(repairable[i], results[i]);
    }
    return mended;
  }

  void Tell(const RootFinding& finding, const Status& result) {
    repaired_ += result.ok() ? 1 : 0;
    if (output_.json) {
      repairs_.push_back({{"path", finding.path},
                          {"repaired", result.ok()},
                          {"error", std::string(StatusMessage(result))}});
    } else if (result.ok()) {
      output_.out << "repaired: " << Printable(finding.path) << "\n";
    } else {
      output_.out << "not repaired: " << Printable(finding.path) << ": "
                  << Printable(StatusMessage(result)) << "\n";
    }
  }

  Status Conclude(const NodeCheck& check) {
    size_t harmless = 0;
    for (const NodeFinding& finding : check.findings) {
      harmless += finding.found.harmless ? 1 : 0;
    }
    const size_t wrong = check.findings.size() - harmless;
    if (output_.json) {
      PrintJson(output_.out, {{"records", check.records},
                              {"directories", check.directories},
                              {"findings", findings_},
                              {"repairs", repairs_},
                              {"wrong", wrong},
                              {"harmless", harmless},
                              {"truncated", check.truncated}});
    } else {
      output_.out << check.records << " snapshots, " << check.directories
                  << " directories: " << (wrong == 0 ? "nothing" : std::to_string(wrong))
                  << " wrong";
      if (harmless != 0) {
        output_.out << ", " << harmless << " harmless";
      }
      if (repaired_ != 0) {
        output_.out << ", " << repaired_ << " repaired";
      }
      output_.out << (check.truncated ? ", and more" : "") << std::endl;
    }
    return wrong == 0 ? OkStatus()
                      : MakeStatus(StatusCode::kFailedPrecondition,
                                   std::to_string(wrong) + " of the root's problems " +
                                       (wrong == 1 ? "is" : "are") + " left");
  }

  Node& node_;
  const Output& output_;
  Progress progress_;
  Json findings_ = Json::array();
  Json repairs_ = Json::array();
  size_t repaired_ = 0;
};

std::string Share(uint64_t part, uint64_t whole) {
  return whole == 0 ? ""
                    : std::to_string(static_cast<int>(100.0 * static_cast<double>(part) /
                                                      static_cast<double>(whole))) +
                          "% of it";
}

}  // namespace

void PrintSpace(const Node::Description& node, const RootSpace& space, const Output& output) {
  if (output.json) {
    PrintJson(output.out, {{"root", node.root},
                           {"kind", node.kind},
                           {"file_system", space.file_system},
                           {"total_size", space.total_bytes},
                           {"free_size", space.free_bytes},
                           {"total_inodes", space.total_inodes},
                           {"free_inodes", space.free_inodes},
                           {"trash_entries", space.trash_entries},
                           {"trash_size", space.trash_bytes},
                           {"layers", space.layers},
                           {"layer_size", space.layer_bytes},
                           {"reserve_size", space.reserve_bytes},
                           {"metadata_size", space.metadata_bytes}});
    return;
  }
  std::vector<std::vector<std::string>> rows = {
      {"file system", ShowBytes(space.total_bytes), space.file_system + ", with " + node.root},
      {"free", ShowBytes(space.free_bytes), Share(space.free_bytes, space.total_bytes)},
  };
  if (space.total_inodes != 0) {
    rows.push_back({"free inodes", std::to_string(space.free_inodes),
                    Share(space.free_inodes, space.total_inodes)});
  }
  rows.push_back({"trash", ShowBytes(space.trash_bytes),
                  std::to_string(space.trash_entries) + " removed snapshots wait to be deleted"});
  if (node.kind == "stargz") {
    rows.push_back({"layers", ShowBytes(space.layer_bytes),
                    std::to_string(space.layers) + " lazy layers, what is there of them"});
    rows.push_back(
        {"reserve", ShowBytes(space.reserve_bytes), "set aside for what they still lack"});
  }
  rows.push_back({"metadata", ShowBytes(space.metadata_bytes), "the store of records"});
  PrintTable(output.out, {"WHAT", "SIZE", "DETAIL"}, rows, output.terminal.columns);
}

Status ShowSpace(Node& node, const Output& output) {
  STRATA_ASSIGN_OR_RETURN(const Node::Description description, node.Describe());
  STRATA_ASSIGN_OR_RETURN(const RootSpace space, node.Space());
  PrintSpace(description, space, output);
  return OkStatus();
}

Status CheckNode(Node& node, bool repair, const Output& output) {
  if (repair) {
    STRATA_RETURN_IF_ERROR(node.CanRepair());
  }
  return FileSystemCheck(node, output).Run(repair);
}

Status CleanUp(Node& node, const Output& output) {
  STRATA_RETURN_IF_ERROR(node.Cleanup());
  if (output.json) {
    PrintJson(output.out, {{"started", true}});
  } else {
    output.out << "the daemon gives back the space of what was removed" << std::endl;
  }
  return OkStatus();
}

}  // namespace strata
