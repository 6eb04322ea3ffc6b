#include <cstring>

#include "check.h"
#include "launch/parameter_block.h"
#include "plan/node.h"

using namespace page4d::plugin;

namespace {

template <class T>
T read(ParameterBlock& block, size_t i) {
  T value;
  std::memcpy(&value, block.table()[i], sizeof(value));
  return value;
}

Addresses some_addresses() {
  Addresses addresses;
  for (size_t i = 0; i < kTensors; ++i) addresses[i] = uint64_t{i + 1} << 40;
  return addresses;
}

// A call of every mode, from its node.
std::vector<Shape> calls(Dtype dtype) {
  const Node biased(Op::kBiasedAttention, {}), segment(Op::kSegmentAttention, {});
  const Node epipolar(Op::kBiasedAttention, {{"epipolar_band", 2.5}, {"epipolar_penalty", 4}});
  const Node rows(Op::kBiasedAttention, {{"row_period", 8}, {"row_leading", 5}, {"row_gain", 0.5}});
  const Node::Dims q = {2, 16, 2400, 64}, few = {1, 2, 32, 64}, many = {1, 2, 9000, 64}, bias = {2, 2400};
  return {biased.shape({q, q, q}, dtype),
          biased.shape({q, q, q, bias}, dtype),
          biased.shape({few, many, many}, dtype),
          biased.shape({few, many, many, {1, 9000}}, dtype),
          rows.shape({q, q, q, bias}, dtype),
          epipolar.shape({q, q, q, bias, {4, 4, 3, 3}, {600, 3}}, dtype),
          segment.shape({q, q, q, bias, {5}, {7, 2}}, dtype),
          segment.shape({q, q, q, bias, {5}, {7, 2}, {16, 7}}, dtype)};
}

size_t check_block(const Entry& entry, const Launch& launch) {
  ParameterBlock block(entry.parameters, launch.values);
  size_t encoded = 0;
  block.point(some_addresses(), [&](const Descriptor& descriptor, uint64_t address) {
    CHECK(address == some_addresses()[static_cast<size_t>(descriptor.tensor)] && descriptor.keys == entry.tile.keys);
    ++encoded;
    TensorMap map{};
    map.bytes[0] = 0xd0;
    return map;
  });
  size_t scratch = 0;
  for (size_t i = 0; i < entry.parameters.size(); ++i) {
    const Parameter& parameter = entry.parameters[i];
    CHECK(reinterpret_cast<uintptr_t>(block.table()[i]) % alignof(TensorMap) == 0);
    if (parameter.name.empty()) {
      ++scratch;
      CHECK(parameter.size == 8 && read<uint64_t>(block, i) == 0);
    } else if (parameter.name.find('.') == std::string_view::npos) {
      const Value& value = launch.values.find(parameter.name)->second;
      if (const auto* ref = std::get_if<Ref>(&value)) {
        CHECK(parameter.size == 8 && read<uint64_t>(block, i) == some_addresses()[static_cast<size_t>(ref->tensor)] +
                                                                     static_cast<uint64_t>(ref->offset));
      } else if (const auto* integer = std::get_if<int64_t>(&value)) {
        CHECK(!parameter.floating &&
              *integer == (parameter.size == 8 ? read<int64_t>(block, i) : read<int32_t>(block, i)));
      } else if (const auto* floating = std::get_if<double>(&value)) {
        CHECK(parameter.floating && parameter.size == 4 && read<float>(block, i) == static_cast<float>(*floating));
      } else if (std::holds_alternative<Descriptor>(value)) {
        CHECK(parameter.size == 128 && read<unsigned char>(block, i) == 0xd0);
      }
    } else {
      const bool shape = parameter.name.find("shape") != std::string_view::npos;
      const auto& descriptor = std::get<Descriptor>(launch.values.find(parameter.name.substr(0, 2))->second);
      const size_t axis = static_cast<size_t>(parameter.name.back() - '0');
      CHECK(shape ? read<int32_t>(block, i) == descriptor.shape[axis]
                  : read<int64_t>(block, i) == descriptor.strides[axis]);
    }
  }
  CHECK(scratch > 0);
  CHECK(encoded == (entry.tile.descriptors ? 2u : 0u));
  return encoded;
}

// Every kernel of the pack is launched by some call, with a value for every parameter in its table.
void every_kernel() {
  const KernelTable& table = KernelTable::embedded();
  std::map<const Entry*, bool> met;
  for (const Entry& entry : table.entries()) met[&entry] = false;
  size_t encoded = 0;
  for (Dtype dtype : {Dtype::kFloat16, Dtype::kBfloat16})
    for (const Shape& shape : calls(dtype))
      for (int capability : {80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121})
        for (const Launch& launch : plan_for(shape, table, capability).launches) {
          const Entry& entry = table.kernel(launch.kernel, dtype, capability);
          met[&entry] = true;
          encoded += check_block(entry, launch);
        }
  for (const auto& [entry, was_met] : met) CHECK(was_met);
  CHECK(encoded > 0);
}

void addresses_are_written_anew() {
  static constexpr Parameter kParameters[] = {{"A", 8, false}, {"B", 128, false}};
  ParameterBlock moved(kParameters, {{"A", Ref{Tensor::kOut, 16}}, {"B", Descriptor{Tensor::kK, {}, {}, 1}}});
  ParameterBlock block = std::move(moved);
  int encoded = 0;
  const Encode encode = [&](const Descriptor&, uint64_t) { return ++encoded, TensorMap{}; };
  Addresses addresses = some_addresses();
  block.point(addresses, encode);
  block.point(addresses, encode);
  CHECK(encoded == 1);
  addresses[static_cast<size_t>(Tensor::kOut)] = 64;
  block.point(addresses, encode);
  CHECK(encoded == 2 && read<uint64_t>(block, 0) == 80);
}

void refusals() {
  const auto refused = [](Parameter parameter, const Value& value) {
    return refusal([&] { ParameterBlock(View<Parameter>(&parameter, 1), Values{{"x", value}}); });
  };
  const std::string misfit = "a value does not fit the kernel's parameter x";
  CHECK(refused({"x", 4, false}, int64_t{1} << 31) == misfit);
  CHECK(refused({"x", 4, true}, 1e39) == misfit);
  CHECK(refused({"x", 4, false}, 1.0) == misfit);
  CHECK(refused({"x", 8, true}, 1.0) == misfit);
  CHECK(refused({"x", 4, true}, int64_t{1}) == misfit);
  CHECK(refused({"x", 4, true}, {}) == misfit);
  CHECK(refused({"x", 4, false}, Ref{Tensor::kQ}) == misfit);
  CHECK(refused({"x", 8, false}, Descriptor{Tensor::kK, {}, {}, 1}) == misfit);
  CHECK(refused({"y", 4, false}, int64_t{1}) == "a kernel's parameter has no value in the plan");
  CHECK(refused({"x.shape0", 4, false}, int64_t{1}) == "a kernel's descriptor has no value in the plan");
}

}  // namespace

int main() {
  every_kernel();
  addresses_are_written_anew();
  refusals();
}
