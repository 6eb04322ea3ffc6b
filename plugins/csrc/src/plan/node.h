// An attention node of a graph: the mode and the call that its attributes and inputs mean, and which types the kernels
// accept. Mirrors node.py.
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

// Attributes that kernels read, all of BiasedAttention.
enum class Field { kEpipolarBand, kEpipolarPenalty, kRowPeriod, kRowLeading, kRowGain };

const char* name_of(Field field);
bool is_floating(Field field);  // whether its type is float; otherwise int
View<Field> fields_of(Op op);

class Node {
 public:
  using Dims = std::vector<int64_t>;

  // attributes: by name; those that no kernel reads are ignored. Throws Error if an option is incomplete.
  Node(Op op, const std::map<std::string, double>& attributes);

  Op op() const { return op_; }
  const std::map<Field, double>& fields() const { return fields_; }

  // What the node computes with this number of inputs. Throws Error if the op does not take as many.
  Mode mode(size_t inputs) const;

  // Whether the kernels take the type of the input or output at `position`, together with the types before it.
  // types: of the inputs, then the output, by PyTorch's names; empty if the type is unknown.
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
