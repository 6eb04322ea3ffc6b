#include "manifest_checks/manifest_files.h"

#include <algorithm>
#include <set>

#include "manifest_checks/manifest_check.h"
#include "text.h"

namespace page4d {
namespace {

constexpr double kLargestTolerance = 1e9;
constexpr size_t kDigits = 64;

bool is_hash(const std::string& digest) {
  return digest.size() == kDigits && digest.find_first_not_of("0123456789abcdef") == std::string::npos;
}

std::string last_part(const std::string& file) { return file.substr(file.rfind('/') + 1); }

void check_own(const std::string& stage, const std::string& file, const std::string& expected) {
  if (last_part(file) != expected)
    throw inconsistent(text("the file of ", stage, " is another stage's"), file, expected);
}

// Where there are reference values there is a tolerance for each output, and for nothing else.
void check_golden(const Manifest& manifest, const Golden& golden) {
  std::set<std::string> outputs, tolerances;
  for (const Stage& stage : manifest.stages) {
    for (const TensorSpec& spec : stage.outputs) outputs.insert(stage.name + "/" + spec.name);
  }
  for (const auto& tolerance : golden.tolerance) tolerances.insert(tolerance.first);
  const bool foreign = !std::includes(outputs.begin(), outputs.end(), tolerances.begin(), tolerances.end());
  const bool lacking =
      golden.expected && !std::includes(tolerances.begin(), tolerances.end(), outputs.begin(), outputs.end());
  if (foreign || lacking) {
    throw inconsistent("its golden clip has other tolerances than the stages' outputs",
                       tolerances.empty() ? "none" : joined(tolerances), joined(outputs));
  }
  for (const auto& [name, limit] : golden.tolerance) {
    if (limit >= 0 && limit <= kLargestTolerance) continue;
    throw inconsistent(text("the tolerance of ", name, " is none"), limit < 0 ? "less than 0" : "more than 1e9",
                       "0 to 1e9");
  }
}

}  // namespace

void check_files(const Manifest& manifest) {
  for (const auto& [name, digest] : manifest.files) {
    if (!is_inside(name)) {
      throw Error(Code::kIncompatible, "manifest.json names a file outside the engine folder")
          .got(name)
          .allowed("relative paths inside it");
    }
    if (!is_hash(digest))
      throw inconsistent(text("the sha256 of ", name, " is none"), digest, "64 digits of 0-9 and a-f");
  }
  static const std::map<std::string, std::string> kNone;
  const auto& plans = manifest.plans ? manifest.plans->files : kNone;
  std::vector<std::string> unlisted;
  for (const Stage& stage : manifest.stages) {
    if (!stage.file || manifest.files.count(*stage.file) == 0) unlisted.push_back(stage.name);
  }
  for (const Stage& stage : manifest.stages)
    if (!stage.cpu.empty() && manifest.files.count(stage.cpu) == 0) unlisted.push_back(stage.name);
  for (const Stage& stage : manifest.stages)
    if (!stage.cpu_signed.empty() && manifest.files.count(stage.cpu_signed) == 0) unlisted.push_back(stage.name);
  for (const auto& [stage, file] : plans) {
    if (manifest.files.count(file) == 0) unlisted.push_back(stage);
  }
  if (!unlisted.empty())
    throw Error(Code::kIncompatible, "manifest.json lists stages without a file")
        .got(joined(unlisted))
        .hint("page4d-export again");
  for (const Stage& stage : manifest.stages) check_own(stage.name, *stage.file, stage.name + ".onnx");
  for (const Stage& stage : manifest.stages)
    if (!stage.cpu.empty()) check_own(stage.name, stage.cpu, stage.name + ".cpu.onnx");
  for (const Stage& stage : manifest.stages)
    if (!stage.cpu_signed.empty()) check_own(stage.name, stage.cpu_signed, stage.name + ".vnni.onnx");
  for (const auto& [stage, file] : plans) check_own(stage, file, stage + ".plan");
  std::vector<std::string> used;
  if (!manifest.constants().empty()) used.push_back(kConstants);
  if (manifest.golden) {
    used.push_back(manifest.golden->inputs);
    if (manifest.golden->expected) used.push_back(*manifest.golden->expected);
  }
  for (const std::string& name : used) {
    if (manifest.files.count(name) == 0)
      throw inconsistent("a file that it uses is not listed", name, "every file with its sha256 in files");
  }
  if (manifest.golden) check_golden(manifest, *manifest.golden);
}

bool is_inside(const std::string& name) {
  if (name.find('\0') != std::string::npos) return false;
  for (size_t begin = 0;;) {
    const size_t end = std::min(name.find('/', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    if (end == name.size()) return true;
    begin = end + 1;
  }
}

}  // namespace page4d
