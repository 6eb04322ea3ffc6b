#include "manifest/manifest_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "files/files.h"
#include "files/folder_file.h"
#include "files/json_reader.h"
#include "manifest_checks/manifest_check.h"
#include "text.h"

namespace page4d {
namespace {

constexpr int64_t kFormat = 1;
constexpr char kManifest[] = "manifest.json";

std::map<std::string, int64_t> integer_map(const JsonValue& value) {
  return value.map<int64_t>([](const JsonValue& v) { return v.integer(); });
}

std::map<std::string, double> number_map(const JsonValue& value) {
  return value.map<double>([](const JsonValue& v) { return v.number(); });
}

std::map<std::string, std::string> string_map(const JsonValue& value) {
  return value.map<std::string>([](const JsonValue& v) { return v.string(); });
}

std::optional<std::string> optional_string(const JsonValue& value) {
  if (value.is_null()) return std::nullopt;
  return value.string("str | null");
}

DType dtype_of(const std::string& name) {
  for (DType dtype : {DType::kUint8, DType::kInt32, DType::kFloat32, DType::kFloat16, DType::kBfloat16}) {
    if (name == name_of(dtype)) return dtype;
  }
  throw inconsistent("a tensor has an unknown type", name, "uint8, int32, float32, float16, bfloat16");
}

// The types of fields that a runtime does not use are checked, too: both readers refuse the same documents.
TensorSpec tensor_of(const JsonValue& value, std::string& dtype) {
  TensorSpec spec;
  value.fields({{"name", true, [&](const JsonValue& v) { spec.name = v.string(); }},
                {"shape", true, [&](const JsonValue& v) { spec.shape = v.integers(); }},
                {"dtype", true, [&](const JsonValue& v) { dtype = v.string(); }},
                {"suffix", false, [&](const JsonValue& v) { spec.suffix = v.string(); }}});
  return spec;
}

double accuracy_of(const JsonValue& value) {
  double relative_l2 = 0;
  value.fields({{"cosine", true, [](const JsonValue& v) { v.number(); }},
                {"max_abs", true, [](const JsonValue& v) { v.number(); }},
                {"relative_l2", true, [&](const JsonValue& v) { relative_l2 = v.number(); }},
                {"nans", true, [](const JsonValue& v) { v.integer(); }}});
  return relative_l2;
}

struct RawStage {
  Stage stage;
  std::vector<std::string> input_types, output_types;  // checked when all fields of the document have their types
};

void read_tensors(const JsonValue& value, std::vector<TensorSpec>& specs, std::vector<std::string>& types) {
  for (const JsonValue& item : value.array()) {
    types.emplace_back();
    specs.push_back(tensor_of(item, types.back()));
  }
}

RawStage stage_of(const JsonValue& value) {
  RawStage raw;
  Stage& s = raw.stage;
  value.fields({{"name", true, [&](const JsonValue& v) { s.name = v.string(); }},
                {"kind", true, [&](const JsonValue& v) { s.kind = v.string(); }},
                {"layer", true,
                 [&](const JsonValue& v) {
                   if (!v.is_null()) s.layer = v.integer("int | null");
                 }},
                {"inputs", true, [&](const JsonValue& v) { read_tensors(v, s.inputs, raw.input_types); }},
                {"outputs", true, [&](const JsonValue& v) { read_tensors(v, s.outputs, raw.output_types); }},
                {"weight_bytes", true, [&](const JsonValue& v) { s.weight_bytes = v.integer(); }},
                {"flop", true, [&](const JsonValue& v) { s.flop = v.integer(); }},
                {"largest", true, [&](const JsonValue& v) { s.largest = v.integer(); }},
                {"calls", false, [&](const JsonValue& v) { s.calls = v.integer(); }},
                {"file", false, [&](const JsonValue& v) { s.file = v.string(); }},
                {"cpu", false, [&](const JsonValue& v) { s.cpu = v.string(); }},
                {"cpu_signed", false, [&](const JsonValue& v) { s.cpu_signed = v.string(); }},
                {"accuracy", false,
                 [&](const JsonValue& v) {
                   for (const auto& [name, error] : v.map<double>(accuracy_of))
                     s.relative_l2 = std::max(s.relative_l2, error);
                 }},
                {"eps", false, [](const JsonValue& v) { number_map(v); }},
                {"floating", false, [](const JsonValue& v) { v.strings(); }},
                {"ties", false, [](const JsonValue& v) { v.number(); }}});
  return raw;
}

KeptLayer kept_of(const JsonValue& value) {
  KeptLayer kept;
  value.fields({{"layer", true, [&](const JsonValue& v) { kept.layer = v.integer(); }},
                {"stages", true, [&](const JsonValue& v) { kept.stages = v.strings(); }},
                {"streams", true, [&](const JsonValue& v) { kept.streams = v.integer(); }}});
  return kept;
}

std::string plan_file(const JsonValue& value) {
  std::string file;
  value.fields({{"file", true, [&](const JsonValue& v) { file = v.string(); }},
                {"plugins", true, [](const JsonValue& v) { v.integer(); }},
                {"fused", true, [](const JsonValue& v) { v.integer(); }},
                {"seconds", true, [](const JsonValue& v) { v.number(); }}});
  return file;
}

std::optional<Plans> plans_of(const JsonValue& value) {
  if (value.is_null()) return std::nullopt;
  Plans plans;
  value.fields({{"library", true, [&](const JsonValue& v) { plans.library = v.string(); }},
                {"version", true, [&](const JsonValue& v) { plans.version = v.string(); }},
                {"chips", true, [&](const JsonValue& v) { plans.chips = v.strings(); }},
                {"kernels", true, [&](const JsonValue& v) { plans.kernels = optional_string(v); }},
                {"stages", true, [&](const JsonValue& v) { plans.files = v.map<std::string>(plan_file); }},
                {"optimization_level", false,
                 [](const JsonValue& v) {
                   if (!v.is_null()) v.integer("int | null");
                 }},
                {"least_chip", false, [&](const JsonValue& v) { plans.least_chip = v.integer(); }}},
               "object | null");
  return plans;
}

std::optional<Golden> golden_of(const JsonValue& value) {
  if (value.is_null()) return std::nullopt;
  Golden golden;
  value.fields({{"inputs", true, [&](const JsonValue& v) { golden.inputs = v.string(); }},
                {"expected", true, [&](const JsonValue& v) { golden.expected = optional_string(v); }},
                {"tolerance", true, [&](const JsonValue& v) { golden.tolerance = number_map(v); }}},
               "object | null");
  return golden;
}

void check_verification(const JsonValue& value) {
  if (value.is_null()) return;
  value.fields({{"layout", true, [](const JsonValue& v) { layout_of(integer_map(v)); }},
                {"frames", true, [](const JsonValue& v) { v.string(); }},
                {"tolerance", true, [](const JsonValue& v) { v.number(); }},
                {"chain", true, [](const JsonValue& v) { v.map<double>(accuracy_of); }}},
               "object | null");
}

void check_file(const JsonValue& value) {
  value.fields({{"name", true, [](const JsonValue& v) { v.string(); }},
                {"model", true, [](const JsonValue& v) { v.string(); }},
                {"sha256", true, [](const JsonValue& v) { v.string(); }},
                {"tensors", true, [](const JsonValue& v) { v.integer(); }},
                {"repository", false, [](const JsonValue& v) { v.string(); }},
                {"revision", false, [](const JsonValue& v) { v.string(); }}});
}

void check_group(const JsonValue& value) {
  const auto count = [](const JsonValue& v) { v.integer(); };
  value.fields({{"name", true, [](const JsonValue& v) { v.string(); }},
                {"file", true, [](const JsonValue& v) { v.string(); }},
                {"keys", true, [](const JsonValue& v) { v.string(); }},
                {"loaded", false, count},
                {"adapted", false, count},
                {"new", false, count},
                {"unused", false, count}});
}

void check_loaded(const JsonValue& value) {
  if (value.is_null()) return;
  const auto for_each = [](void (*check)(const JsonValue&)) {
    return [check](const JsonValue& v) {
      for (const JsonValue& item : v.array()) check(item);
    };
  };
  value.fields({{"files", true, for_each(check_file)},
                {"groups", true, for_each(check_group)},
                {"notes", false, [](const JsonValue& v) { v.strings(); }}},
               "object | null");
}

// Nothing if the value has another type.
template <class Read>
auto if_type_fits(const Read& read) -> std::optional<decltype(read())> {
  try {
    return read();
  } catch (const JsonError&) {
    return std::nullopt;
  }
}

std::map<std::string, ModelValue> options_of(const JsonValue& model) {
  std::map<std::string, ModelValue> options;
  for (const char* name : {"width", "streams", "depth", "order", "global_layers", "published"}) {
    ModelValue& option = options[name];
    const std::optional<JsonValue> value = model.find(name);
    if (!value) continue;
    option.shown = value->shown();
    option.number = if_type_fits([&] { return value->integer(); });
    option.string = if_type_fits([&] { return value->string(); });
    option.strings = if_type_fits([&] { return value->strings(); });
    option.integers = if_type_fits([&] { return value->integers(); });
  }
  return options;
}

Manifest manifest_of(const JsonValue& root) {
  Manifest m;
  std::vector<RawStage> raw;
  std::map<std::string, int64_t> sizes;
  root.fields({{"page4d", true, [&](const JsonValue& v) { m.page4d = v.string(); }},
               {"model", true,
                [&](const JsonValue& v) {
                  v.items();
                  m.model = v.dump();
                  m.options = options_of(v);
                  m.width = m.options["width"].number.value_or(0);
                }},
               {"weights", true, [&](const JsonValue& v) { m.weights = v.string(); }},
               {"layout", true, [&](const JsonValue& v) { sizes = integer_map(v); }},
               {"precision", true, [&](const JsonValue& v) { m.precision = v.string(); }},
               {"encoder_images", true, [&](const JsonValue& v) { m.encoder_images = v.integer(); }},
               {"stages", true,
                [&](const JsonValue& v) {
                  for (const JsonValue& item : v.array()) raw.push_back(stage_of(item));
                }},
               {"keep", true,
                [&](const JsonValue& v) {
                  for (const JsonValue& item : v.array()) m.keep.push_back(kept_of(item));
                }},
               {"loaded", false, check_loaded},
               {"verification", false, check_verification},
               {"points_frame", false, [&](const JsonValue& v) { m.points_frame = optional_string(v); }},
               {"pose_direction", false, [&](const JsonValue& v) { m.pose_direction = optional_string(v); }},
               {"unit", false, [&](const JsonValue& v) { m.unit = optional_string(v); }},
               {"licence", false, [&](const JsonValue& v) { m.licence = v.string(); }},
               {"attention", false, [&](const JsonValue& v) { m.attention = v.string(); }},
               {"plans", false, [&](const JsonValue& v) { m.plans = plans_of(v); }},
               {"golden", false, [&](const JsonValue& v) { m.golden = golden_of(v); }},
               {"files", false, [&](const JsonValue& v) { m.files = string_map(v); }},
               {"made", false, [](const JsonValue& v) { string_map(v); }},
               {"format", false, [](const JsonValue& v) { v.integer(); }}});
  m.layout = layout_of(sizes);
  for (RawStage& raw_stage : raw) {
    for (size_t i = 0; i < raw_stage.input_types.size(); ++i)
      raw_stage.stage.inputs[i].dtype = dtype_of(raw_stage.input_types[i]);
    for (size_t i = 0; i < raw_stage.output_types.size(); ++i)
      raw_stage.stage.outputs[i].dtype = dtype_of(raw_stage.output_types[i]);
    m.stages.push_back(std::move(raw_stage.stage));
  }
  check_manifest(m);
  return m;
}

// A string without its quotes.
std::string shown(const JsonValue& value) {
  try {
    return value.string();
  } catch (const JsonError&) {
    return value.dump();
  }
}

}  // namespace

Manifest parse_manifest(const std::string& content, const std::string& path) {
  try {
    const JsonDocument document(content);
    const JsonValue root = document.root();
    root.items();
    const std::optional<JsonValue> format = root.find("format");
    if (!format || !format->equals(kFormat)) {
      Error error(Code::kIncompatible, "manifest.json has another format version");
      if (format && !format->is_null()) error.got(shown(*format));
      throw error.allowed(text(kFormat)).hint("page4d-export again with this version");
    }
    return manifest_of(root);
  } catch (const JsonError& error) {
    throw Error(Code::kIncompatible, text("manifest.json is damaged: ", error.what()))
        .got(path)
        .hint("page4d-export again");
  }
}

Manifest read_manifest(const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    throw Error(Code::kIncompatible, "there is no such engine folder")
        .got(folder)
        .hint("page4d-export -o ENGINES --T .. --V ..");
  }
  const std::string path = (fs::path(folder) / kManifest).string();
  if (fs::symlink_status(path, ignored).type() == fs::file_type::not_found) {
    throw Error(Code::kIncompatible,
                "the engine folder has no manifest.json: its export did not finish, or it is another kind of folder")
        .got(folder)
        .hint("page4d-export again");
  }
  path_inside(folder, kManifest);
  const auto size = fs::file_size(path, ignored);
  if (!ignored && size > kLargestManifest) {
    throw Error(Code::kIncompatible, "manifest.json is too large")
        .got(text(size, " bytes"))
        .allowed(text("up to ", kLargestManifest))
        .hint("page4d-export again");
  }
  const std::optional<std::string> content = read_file(path, kLargestManifest);
  if (!content)
    throw Error(Code::kIncompatible, text("manifest.json cannot be read: ", std::strerror(errno))).got(path);
  return parse_manifest(*content, path);
}

}  // namespace page4d
