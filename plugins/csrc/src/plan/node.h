// An attention node of a graph as a call: which mode its inputs and attributes mean, and whether the kernels can take
// it. Mirrors node.py.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "plan/launch_plan.h"
#include "plan/ops.h"
#include "view.h"

namespace page4d::plugin {

// Attributes that a kernel reads; all are BiasedAttention's.
enum class Field { kEpipolarBand, kEpipolarPenalty, kRowPeriod, kRowLeading, kRowGain };

const char* name_of(Field field);
bool is_floating(Field field);  // else an integer
View<Field> fields_of(Op op);

class Node {
 public:
  using Dims = std::vector<int64_t>;

  // From an op and its attributes by name; those that no kernel reads are left out. Throws Error for half of an option.
  Node(Op op, const std::map<std::string, double>& attributes);

  Op op() const { return op_; }
  const std::map<Field, double>& fields() const { return fields_; }

  // What a node with so many inputs computes. Throws Error where no op has so many with these attributes.
  Mode mode(size_t inputs) const;

  // Whether the kernels take the type of one input or output, those before it given.
  // `types` are of the inputs, then the output, as PyTorch names them; a name that is not known is empty.
  bool accepts(size_t position, const std::vector<std::string_view>& types) const;

  // The call, from the shapes of the node's inputs. Throws Error for shapes that do not fit together.
  Shape shape(const std::vector<Dims>& shapes, Dtype dtype) const;

 private:
  bool has(Field field) const { return fields_.count(field) != 0; }
  double value(Field field) const;

  Op op_;
  std::map<Field, double> fields_;
};

}  // namespace page4d::plugin
