#include "onnxruntime/cpu_graph_check.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "files/folder_file.h"
#include "onnxruntime/onnx_file.h"
#include "text.h"

namespace page4d {
namespace {

constexpr char kExportAgain[] = "page4d-export again";
constexpr char kAttentionDomain[] = "page4d";
constexpr int64_t kMostTrips = 1 << 20;                // of a loop times those around it
constexpr int64_t kFloat = 1, kUint8 = 2, kInt32 = 6;  // as ONNX numbers types
// Bytes of an element, by the types that weights in another file may have.
const std::map<int64_t, int64_t> kBytesOfElements = {{kFloat, 4}, {kUint8, 1}, {3, 1},  {kInt32, 4}, {7, 8},
                                                     {9, 1},      {10, 2},     {16, 2}, {17, 1}};

bool is_standard(const std::string& domain) { return domain.empty() || domain == "ai.onnx"; }

// Whether a * b is at most `most`; all at least 0.
bool within(int64_t a, int64_t b, int64_t most) { return a == 0 || b <= most / a; }

// The product; -1 where a size is negative, or it is over 2^62.
int64_t product_of(const std::vector<int64_t>& sizes) {
  int64_t product = 1;
  if (std::find(sizes.begin(), sizes.end(), 0) != sizes.end()) product = 0;
  for (int64_t size : sizes) {
    if (size < 0 || !within(product, size, int64_t{1} << 62)) return -1;
    product *= size;
  }
  return product;
}

class CpuGraphCheck {
 public:
  CpuGraphCheck(const std::string& file, const EngineFolder& folder) : file_(file), folder_(folder) {}

  void run(const OnnxFile& model, const Stage& stage) {
    check_borders("inputs", model.graph.inputs, stage.inputs);
    check_borders("outputs", model.graph.outputs, stage.outputs);
    std::set<std::string> functions;
    for (const OnnxFunction& function : model.functions) {
      const std::string kind = function.name.substr(0, function.name.rfind('_'));
      const bool is_attention = kind != function.name && (kind == "BiasedAttention" || kind == "SegmentAttention");
      if (function.domain != kAttentionDomain || !is_attention || !function.defaults.empty())
        throw unknown(text(function.domain.empty() ? "a standard domain" : function.domain, ": ", function.name));
      functions.insert(function.name);
    }
    for (const OnnxNode& node : model.graph.nodes) {
      if (node.has_graphs()) throw unknown(node.op_type + ", which has a graph inside");
      if (!is_standard(node.domain) && !(node.domain == kAttentionDomain && functions.count(node.op_type) != 0))
        throw unknown(node.domain + ": " + node.op_type);
    }
    for (const OnnxFunction& function : model.functions) check_body(function.nodes, function.inputs, {}, 1);
    if (model.has_training) throw no_engines_part();
    check_graph_weights(model.graph);
    for (const OnnxFunction& function : model.functions) check_node_weights(function.nodes);
  }

 private:
  // The names of a body: those of constant integers with their value, all others with nothing.
  using Scope = std::map<std::string, std::optional<int64_t>>;

  Error unknown(const std::string& got) const {
    return Error(Code::kIncompatible, file_ + " has an operator of an unknown kind")
        .got(got)
        .allowed("ONNX's own, page4d's attention as functions, com.microsoft.MultiHeadAttention in these")
        .hint(kExportAgain);
  }

  Error no_engines_part() const {
    return Error(Code::kIncompatible, file_ + " has parts that no engine has")
        .got("training or sparse weights")
        .hint(kExportAgain);
  }

  // Types are float32 for 16 bits; shapes may be views of the manifest's.
  void check_borders(const char* what, const std::vector<OnnxValue>& values, const std::vector<TensorSpec>& specs) {
    std::map<std::string, std::pair<int64_t, int64_t>> actual, expected;
    for (const OnnxValue& value : values) actual[value.name] = {value.dtype, product_of(value.shape)};
    for (const TensorSpec& spec : specs) {
      const int64_t dtype = spec.dtype == DType::kUint8 ? kUint8 : spec.dtype == DType::kInt32 ? kInt32 : kFloat;
      expected[spec.binding()] = {dtype, spec.count()};
    }
    if (actual == expected && values.size() == specs.size()) return;
    throw Error(Code::kIncompatible, text(file_, " has other ", what, " than the manifest says"))
        .got(actual.empty() ? "none" : listed(actual))
        .allowed(listed(expected))
        .hint(kExportAgain);
  }

  static std::string listed(const std::map<std::string, std::pair<int64_t, int64_t>>& tensors) {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors) {
      const auto& [dtype, count] = tensor;
      const std::string type = dtype == kFloat   ? "float32"
                               : dtype == kUint8 ? "uint8"
                               : dtype == kInt32 ? "int32"
                                                 : text("type ", dtype);
      names.push_back(text(name, " ", type, " ", count < 0 ? "of no fixed size" : text("[", count, "]")));
    }
    return joined(names);
  }

  // ONNX's own operators and ONNX Runtime's attention; loops of a fixed number of trips.
  // source_names: of values that no node of the body makes. around: the scopes of the bodies around it, the innermost
  // last. trips_around: the product of the trips of the loops around it.
  void check_body(const std::vector<OnnxNode>& nodes, const std::vector<std::string>& source_names,
                  std::vector<const Scope*> around, int64_t trips_around) {
    Scope own;
    for (const std::string& name : source_names) own[name];
    for (const OnnxNode& node : nodes)
      for (const std::string& name : node.outputs) own[name];
    for (const OnnxNode& node : nodes) add_constant(node, own);
    around.push_back(&own);
    for (const OnnxNode& node : nodes) {
      const bool is_attention = node.domain == "com.microsoft" && node.op_type == "MultiHeadAttention";
      if (!is_standard(node.domain) && !is_attention) throw unknown(node.domain + ": " + node.op_type);
      if (!node.has_graphs()) continue;
      const bool is_loop = node.op_type == "Loop" && !node.inputs.empty();
      const std::optional<int64_t> trips = is_loop ? looked_up(around, node.inputs[0]) : std::nullopt;
      if (!trips) throw unknown(node.op_type + ", which has a graph inside and no fixed number of trips");
      const int64_t at_least_one = std::max<int64_t>(*trips, 1);
      if (!within(trips_around, at_least_one, kMostTrips)) {
        throw unknown(text("Loop of ", at_least_one, " trips in loops of ", trips_around, "; up to ", kMostTrips,
                           " in all are allowed"));
      }
      for (const OnnxAttribute& attribute : node.attributes)
        for (const OnnxGraph& graph : attribute.graphs)
          check_body(graph.nodes, graph.source_names(), around, trips_around * at_least_one);
    }
  }

  // The integer of that name, in the innermost scope that has the name; nothing: it is no constant integer.
  static std::optional<int64_t> looked_up(const std::vector<const Scope*>& scopes, const std::string& name) {
    for (auto scope = scopes.rbegin(); scope != scopes.rend(); ++scope) {
      const auto entry = (*scope)->find(name);
      if (entry != (*scope)->end()) return entry->second;
    }
    return std::nullopt;
  }

  // Where the node makes an integer: an empty name is the name of nothing, and a function's caller gives none.
  static void add_constant(const OnnxNode& node, Scope& scope) {
    if (node.op_type != "Constant" || !is_standard(node.domain)) return;
    if (node.outputs.size() != 1 || node.outputs[0].empty()) return;
    if (node.attributes.size() != 1 || node.attributes[0].name != "value_int" || !node.attributes[0].integer) return;
    scope[node.outputs[0]] = node.attributes[0].integer;
  }

  void check_graph_weights(const OnnxGraph& graph) {
    if (graph.has_sparse) throw no_engines_part();
    for (const OnnxTensor& tensor : graph.initializers) check_place(tensor);
    check_node_weights(graph.nodes);
  }

  void check_node_weights(const std::vector<OnnxNode>& nodes) {
    for (const OnnxNode& node : nodes) {
      for (const OnnxAttribute& attribute : node.attributes) {
        for (const OnnxTensor& tensor : attribute.tensors) check_place(tensor);
        for (const OnnxGraph& graph : attribute.graphs) check_graph_weights(graph);
      }
    }
  }

  // Weights lie beside their ONNX file, in a file that the manifest lists, which is as long as they say.
  void check_place(const OnnxTensor& tensor) {
    if (!tensor.place) return;
    const std::map<std::string, std::string> place(tensor.place->begin(), tensor.place->end());
    const auto entry = place.find("location");
    const std::string location = entry == place.end() ? "" : entry->second;
    const std::string listed = (std::filesystem::path(file_).parent_path() / location).generic_string();
    // a plain name: "/" would also lead to places that ONNX Runtime gives a meaning of its own
    if (location.empty() || location.find_first_of("/\\") != std::string::npos ||
        folder_.manifest.files.count(listed) == 0) {
      throw Error(Code::kIncompatible, file_ + " has weights that are not in the engine folder")
          .got(location.empty() ? "no location" : location)
          .allowed("the name of a file beside it that manifest.json lists")
          .hint(kExportAgain);
    }
    const auto size = static_cast<int64_t>(std::filesystem::file_size(path_inside(folder_.path, listed)));
    const auto width = kBytesOfElements.find(tensor.dtype);
    int64_t count = product_of(tensor.dims);
    const std::optional<int64_t> offset = number_of(place, "offset", 0);
    const bool plain = place.size() == tensor.place->size() && width != kBytesOfElements.end() && count >= 0 && offset;
    int64_t bytes = 0;
    if (plain) bytes = within(count, width->second, int64_t{1} << 62) ? count * width->second : INT64_MAX;
    const std::optional<int64_t> length = number_of(place, "length", bytes);
    bool known = plain && length.has_value();
    for (const auto& [key, value] : place) known = known && (key == "location" || key == "offset" || key == "length");
    if (!known) {
      std::vector<std::string> shown;
      for (const auto& [key, value] : place) shown.push_back(text(key, "=", value));
      throw Error(Code::kIncompatible, file_ + " has weights in a place that is none")
          .got(text(joined(shown), ", type ", tensor.dtype, " ", text_of(tensor.dims)))
          .allowed("location, offset and length of a tensor")
          .hint(kExportAgain);
    }
    if (*length != bytes || *length > size || *offset > size - *length) {
      throw Error(Code::kIncompatible, file_ + " has weights beyond the end of their file")
          .got(text(bytes, " bytes of ", tensor.name, ", ", *length, " bytes at ", *offset))
          .allowed(text(listed, " has ", size, " bytes"))
          .hint(kExportAgain);
    }
  }

  // Of up to 18 digits; nothing where it is no such number.
  static std::optional<int64_t> number_of(const std::map<std::string, std::string>& place, const char* key,
                                          int64_t otherwise) {
    const auto entry = place.find(key);
    if (entry == place.end()) return otherwise;
    const std::string& digits = entry->second;
    if (digits.empty() || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos)
      return std::nullopt;
    return std::stoll(digits);
  }

  const std::string& file_;
  const EngineFolder& folder_;
};

}  // namespace

void check_cpu_graph(std::string_view content, const std::string& file, const EngineFolder& folder,
                     const Stage& stage) {
  try {
    CpuGraphCheck(file, folder).run(OnnxFile::parse(content), stage);
  } catch (const Damaged& damaged) {
    throw Error(Code::kIncompatible, file + " is damaged: it is no ONNX file").got(damaged.what()).hint(kExportAgain);
  }
}

}  // namespace page4d
