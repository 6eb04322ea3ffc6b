#include "launch/parameter_block.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

#include "error.h"

namespace page4d::plugin {
namespace {

constexpr size_t kPointer = 8;

// The value of a name in the kernel's table: a value of the plan, or a part of a descriptor, as "KD.stride2".
Value value_of(std::string_view name, const Values& values) {
  if (name.empty()) return {};
  const size_t dot = name.find('.');
  const auto value = values.find(name.substr(0, dot));
  if (value == values.end()) throw Error(text("a kernel's parameter has no value in the plan")).got(std::string(name));
  if (dot == std::string_view::npos) return value->second;
  const auto* descriptor = std::get_if<Descriptor>(&value->second);
  const std::string_view part = name.substr(dot + 1);
  const size_t axis = static_cast<size_t>(part.back() - '0');
  if (descriptor == nullptr || axis >= descriptor->shape.size())
    throw Error("a kernel's descriptor has no value in the plan").got(std::string(name));
  return part.substr(0, 5) == "shape" ? descriptor->shape[axis] : descriptor->strides[axis];
}

[[noreturn]] void refuse(const Parameter& parameter, const std::string& value) {
  throw Error(text("a value does not fit the kernel's parameter ", parameter.name))
      .got(value)
      .allowed(text(parameter.size, " bytes, ", parameter.floating ? "floating" : "integer or address"));
}

template <class T>
void write(const Parameter& parameter, const T& value, TensorMap& slot) {
  if (parameter.size != sizeof(T)) refuse(parameter, text(sizeof(T), " bytes"));
  std::memcpy(slot.bytes, &value, sizeof(T));
}

void write_floating(const Parameter& parameter, double value, TensorMap& slot) {
  if (!parameter.floating || (std::isfinite(value) && std::abs(value) > std::numeric_limits<float>::max()))
    refuse(parameter, text(value));
  write(parameter, static_cast<float>(value), slot);
}

void write_integer(const Parameter& parameter, int64_t value, TensorMap& slot) {
  if (parameter.floating) refuse(parameter, text(value));
  if (parameter.size == sizeof(int64_t)) return write(parameter, value, slot);
  if (value < std::numeric_limits<int32_t>::min() || value > std::numeric_limits<int32_t>::max())
    refuse(parameter, text(value));
  write(parameter, static_cast<int32_t>(value), slot);
}

}  // namespace

ParameterBlock::ParameterBlock(View<Parameter> parameters, const Values& values)
    : slots_(parameters.size(), TensorMap{}) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& parameter = parameters[i];
    const Value value = value_of(parameter.name, values);
    if (const auto* integer = std::get_if<int64_t>(&value)) {
      write_integer(parameter, *integer, slots_[i]);
    } else if (const auto* floating = std::get_if<double>(&value)) {
      write_floating(parameter, *floating, slots_[i]);
    } else if (const auto* ref = std::get_if<Ref>(&value)) {
      if (parameter.size != kPointer) refuse(parameter, "an address");
      refs_.emplace_back(i, *ref);
    } else if (const auto* descriptor = std::get_if<Descriptor>(&value)) {
      if (parameter.size != sizeof(TensorMap)) refuse(parameter, "a tensor map");
      refs_.emplace_back(i, *descriptor);
    } else {  // null or zero, of any size
      if (parameter.floating || parameter.size > sizeof(TensorMap)) refuse(parameter, "nothing");
    }
    table_.push_back(slots_[i].bytes);
  }
}

void ParameterBlock::point(const Addresses& addresses, const Encode& encode) {
  if (pointed_ == addresses) return;
  for (const auto& [i, value] : refs_) {
    if (const auto* ref = std::get_if<Ref>(&value)) {
      const uint64_t address = addresses[static_cast<size_t>(ref->tensor)] + static_cast<uint64_t>(ref->offset);
      std::memcpy(slots_[i].bytes, &address, sizeof(address));
    } else {
      const auto& descriptor = std::get<Descriptor>(value);
      slots_[i] = encode(descriptor, addresses[static_cast<size_t>(descriptor.tensor)]);
    }
  }
  pointed_ = addresses;
}

}  // namespace page4d::plugin
