#include "plan/node.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "error.h"

namespace page4d::plugin {
namespace {

constexpr Field kBiasedFields[] = {Field::kEpipolarBand, Field::kEpipolarPenalty, Field::kRowPeriod, Field::kRowLeading,
                                   Field::kRowGain};
constexpr Field kEpipolar[] = {Field::kEpipolarBand, Field::kEpipolarPenalty};
constexpr Field kRows[] = {Field::kRowPeriod, Field::kRowLeading, Field::kRowGain};

template <class T, class Name>
std::string joined(const T& all, Name name) {
  std::string result;
  for (const auto& item : all) result += (result.empty() ? "" : ", ") + std::string(name(item));
  return result;
}

}  // namespace

const char* name_of(Field field) {
  static constexpr const char* kNames[] = {"epipolar_band", "epipolar_penalty", "row_period", "row_leading",
                                           "row_gain"};
  return kNames[static_cast<size_t>(field)];
}

bool is_floating(Field field) { return field != Field::kRowPeriod && field != Field::kRowLeading; }

View<Field> fields_of(Op op) {
  return op == Op::kBiasedAttention ? View<Field>(kBiasedFields) : View<Field>(nullptr, 0);
}

Node::Node(Op op, const std::map<std::string, double>& attributes) : op_(op) {
  for (Field field : fields_of(op)) {
    const auto attribute = attributes.find(name_of(field));
    if (attribute == attributes.end()) continue;
    if (!is_floating(field) && !(std::abs(attribute->second) <= std::numeric_limits<int32_t>::max()))
      throw Error(text(name_of(field), " of ", name_of(op), " is no count of rows"))
          .got(text(attribute->second))
          .allowed("an integer of 32 bits");
    fields_[field] = is_floating(field) ? attribute->second : std::trunc(attribute->second);
  }
  for (View<Field> option : {View<Field>(kEpipolar), View<Field>(kRows)}) {
    size_t count = 0;
    for (Field field : option) count += fields_.count(field);
    if (count != 0 && count != option.size())
      throw Error(text(name_of(op), " with half of an option"))
          .got(joined(fields_, [](const auto& field) { return name_of(field.first); }))
          .allowed("all or none of " + joined(option, [](Field field) { return name_of(field); }));
  }
}

Mode Node::mode(size_t inputs) const {
  std::map<size_t, Mode> modes;
  if (op_ == Op::kSegmentAttention)
    modes = {{6, Mode::kSegments}, {7, Mode::kSegmentsBiased}};
  else if (has(Field::kRowPeriod))
    modes = {{4, Mode::kRows}};
  else if (has(Field::kEpipolarBand))
    modes = {{6, Mode::kEpipolar}};
  else
    modes = {{3, Mode::kDense}, {4, Mode::kBiased}};
  const auto mode = modes.find(inputs);
  if (mode == modes.end()) {
    const std::string counts = joined(modes, [](const auto& entry) { return std::to_string(entry.first); });
    throw Error(text(name_of(op_), " with a wrong number of inputs")).got(text(inputs)).allowed(counts);
  }
  return mode->second;
}

bool Node::accepts(size_t position, const std::vector<std::string_view>& types) const {
  const size_t outputs_begin = types.size() - 1;
  if (position > outputs_begin || outputs_begin > inputs_of(op_).size()) return false;
  const std::string_view type = types[position];
  switch (position < outputs_begin ? inputs_of(op_)[position] : Tensor::kOut) {
    case Tensor::kSegPtr:
    case Tensor::kSeg:
      return type == "int32";
    case Tensor::kFundamental:
    case Tensor::kCentres:
      return type == "float32";
    default:
      return (type == "float16" || type == "bfloat16") && type == types[0];
  }
}

Shape Node::shape(const std::vector<Dims>& shapes, Dtype dtype) const {
  Shape call{};
  call.mode = mode(shapes.size());
  call.dtype = dtype;
  const Dims &q = shapes[0], &k = shapes[1];
  if (q.size() != 4 || k.size() != 4)
    throw Error("q and k of an attention have four axes")
        .got(text(text_of(q), ", ", text_of(k)))
        .allowed("[Z,A,n,D], [Z,A,m,D]");
  call.Z = q[0], call.A = q[1], call.n = q[2], call.D = q[3], call.m = k[2];

  const View<Tensor> inputs = inputs_of(op_);
  const auto first_axis = [&](Tensor tensor) -> int64_t {
    for (size_t i = 0; i < shapes.size(); ++i)
      if (inputs[i] == tensor && !shapes[i].empty()) return shapes[i][0];
    return 0;
  };
  std::map<Tensor, Dims> expected = {{Tensor::kK, {call.Z, call.A, call.m, call.D}},
                                     {Tensor::kV, {call.Z, call.A, call.m, call.D}},
                                     {Tensor::kKeyBias, {call.Z, call.m}}};
  if (call.mode == Mode::kEpipolar) {
    const int64_t views = call.groups = std::max<int64_t>(1, first_axis(Tensor::kFundamental));
    expected[Tensor::kFundamental] = {views, views, 3, 3};
    expected[Tensor::kCentres] = {call.n / views, 3};
  }
  if (op_ == Op::kSegmentAttention) {
    call.segments = first_axis(Tensor::kSeg);
    call.groups = first_axis(Tensor::kSegPtr) - 1;
    expected[Tensor::kSegPtr] = {call.groups + 1};
    expected[Tensor::kSeg] = {call.segments, 2};
    expected[Tensor::kSegmentBias] = {call.A, call.segments};
  }
  for (size_t i = 0; i < shapes.size(); ++i) {
    const auto shape = expected.find(inputs[i]);
    if (shape != expected.end() && shape->second != shapes[i])
      throw Error(text(name_of(inputs[i]), " of ", name_of(op_), " does not fit q ", text_of(q), " and k ", text_of(k)))
          .got(text_of(shapes[i]))
          .allowed(text_of(shape->second));
  }
  if (call.mode == Mode::kRows)
    call.rows = BiasedRows{static_cast<int64_t>(value(Field::kRowPeriod)),
                           static_cast<int64_t>(value(Field::kRowLeading)), value(Field::kRowGain)};
  call.band = value(Field::kEpipolarBand);
  call.penalty = value(Field::kEpipolarPenalty);
  return call;
}

double Node::value(Field field) const {
  const auto value = fields_.find(field);
  return value == fields_.end() ? 0.0 : value->second;
}

}  // namespace page4d::plugin
