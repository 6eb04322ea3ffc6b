// Prints plans, for tests that compare them with Python's.
//
// Every line of standard input is a call: the op, q's type, the compute capability times ten, the attributes, the
// inputs' shapes. As in
//   BiasedAttention float16 90 epipolar_band=2.5,epipolar_penalty=4 1,2,128,64 1,2,128,64 1,2,128,64 1,128 2,2,3,3 64,3
// with - for no attributes and for a shape without axes. Every answer is a line of JSON: the plan, or the error's text.
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>

#include "error.h"
#include "kernels/kernel_table.h"
#include "launch/parameter_block.h"
#include "plan/launch_plan.h"
#include "plan/node.h"

namespace {

using namespace page4d::plugin;

std::vector<std::string> split(const std::string& line, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(line);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

template <class T>
std::string list(const T& parts) {
  std::string all;
  for (const std::string& part : parts) all += (all.empty() ? "" : ", ") + part;
  return "[" + all + "]";
}

std::string quoted(const std::string& value) {
  std::string all;
  for (char character : value)
    all += character == '\n'                       ? "\\n"
           : character == '"' || character == '\\' ? std::string("\\") + character
                                                   : std::string(1, character);
  return "\"" + all + "\"";
}

std::string json(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  char digits[32];
  std::snprintf(digits, sizeof(digits), "%.17g", value);
  return std::strpbrk(digits, ".e") != nullptr ? digits : std::string(digits) + ".0";
}

std::string json(int64_t value) { return std::to_string(value); }
std::string json(std::monostate) { return "null"; }
std::string json(const Ref& ref) { return quoted(text(name_of(ref.tensor), "+", ref.offset)); }
std::string json(const Descriptor& d) {
  return text("{\"tensor\": ", quoted(name_of(d.tensor)), ", \"shape\": ", text_of({d.shape.begin(), d.shape.end()}),
              ", \"strides\": ", text_of({d.strides.begin(), d.strides.end()}), ", \"keys\": ", d.keys, "}");
}

// The bytes of every parameter in hexadecimal. Tensor i is at address (i + 1) << 32; a tensor map is its tensor's
// address, sixteen times.
std::string packed(const Entry& entry, const Launch& launch) {
  Addresses addresses;
  for (size_t i = 0; i < kTensors; ++i) addresses[i] = uint64_t{i + 1} << 32;
  ParameterBlock block(entry.parameters, launch.values);
  block.point(addresses, [](const Descriptor&, uint64_t address) {
    TensorMap map;
    for (size_t i = 0; i < sizeof(map); i += sizeof(address)) std::memcpy(map.bytes + i, &address, sizeof(address));
    return map;
  });
  std::vector<std::string> all;
  for (size_t i = 0; i < entry.parameters.size(); ++i) {
    std::string hex;
    for (size_t at = 0; at < entry.parameters[i].size; ++at) {
      char digits[3];
      std::snprintf(digits, sizeof(digits), "%02x", static_cast<const unsigned char*>(block.table()[i])[at]);
      hex += digits;
    }
    all.push_back(quoted(hex));
  }
  return list(all);
}

std::string answer(const std::string& line) {
  const std::vector<std::string> fields = split(line, ' ');
  if (fields.size() < 4) throw Error("a call is an op, a type, a compute capability, attributes and shapes").got(line);
  const std::optional<Op> op = op_named(fields[0]);
  if (!op) throw Error("no such op").got(fields[0]).allowed("BiasedAttention, SegmentAttention");
  const int capability = std::atoi(fields[2].c_str());
  std::map<std::string, double> attributes;
  if (fields[3] != "-")
    for (const std::string& attribute : split(fields[3], ',')) {
      const std::vector<std::string> pair = split(attribute, '=');
      attributes[pair.at(0)] = std::strtod(pair.at(1).c_str(), nullptr);
    }
  std::vector<Node::Dims> shapes;
  for (size_t i = 4; i < fields.size(); ++i) {
    shapes.emplace_back();
    if (fields[i] != "-")
      for (const std::string& size : split(fields[i], ','))
        shapes.back().push_back(std::strtoll(size.c_str(), nullptr, 10));
  }

  const KernelTable& table = KernelTable::embedded();
  const Shape shape = Node(*op, attributes).shape(shapes, dtype_named(fields[1]));
  const Plan plan = plan_for(shape, table, capability);
  std::vector<std::string> launches;
  for (const Launch& launch : plan.launches) {
    const Entry& entry = table.kernel(launch.kernel, shape.dtype, capability);
    std::string values;
    for (const auto& [name, value] : launch.values)
      values += text(values.empty() ? "" : ", ", quoted(name), ": ",
                     std::visit([](const auto& parameter) { return json(parameter); }, value));
    launches.push_back(text("{\"kernel\": ", quoted(launch.kernel), ", \"path\": ", quoted(entry.path()),
                            ", \"threads\": ", entry.threads, ", \"shared\": ", entry.shared,
                            ", \"grid\": ", text_of({launch.grid.begin(), launch.grid.end()}), ", \"values\": {",
                            values, "}, \"parameters\": ", packed(entry, launch), "}"));
  }
  return text("{\"launches\": ", list(launches), ", \"workspace\": ", plan.workspace,
              ", \"most_workspace\": ", most_workspace(shape, table), "}");
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::string out;
    try {
      out = answer(line);
    } catch (const std::exception& error) {
      out = "{\"error\": " + quoted(error.what()) + "}";
    }
    std::cout << out << std::endl;  // flushed: the other side waits for it
  }
  return 0;
}
