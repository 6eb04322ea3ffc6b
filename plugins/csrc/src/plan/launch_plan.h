// From the shapes of one attention call to its kernel launches: grids, parameters, workspace. Mirrors launch_plan.py.
//
// Tensors are contiguous, as in engines.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kernels/kernel_table.h"
#include "kernels/modes.h"
#include "plan/ops.h"

namespace page4d::plugin {

// One call: q [Z,A,n,D], k and v [Z,A,m,D], and what its mode needs.
struct Shape {
  Mode mode;
  Dtype dtype;
  int64_t Z, A, n, m;
  int64_t D = kHeadDim;
  int64_t groups = 1;  // of queries with key segments; views with epipolar lines
  int64_t segments = 0;
  std::optional<BiasedRows> rows;
  double band = 0;  // pixels
  double penalty = 0;

  bool operator==(const Shape& other) const;
};

// A parameter that is an address: a tensor's, plus an offset in bytes (in the workspace).
struct Ref {
  Tensor tensor;
  int64_t offset = 0;
};

// A parameter that is a tensor map over a [Z,A,m,D] tensor, box [1,1,keys,D].
struct Descriptor {
  Tensor tensor;
  std::array<int64_t, 4> shape;
  std::array<int64_t, 4> strides;
  int64_t keys;
};

using Value = std::variant<std::monostate, int64_t, double, Ref, Descriptor>;
using Values = std::map<std::string, Value, std::less<>>;

// One kernel: its name in the pack without the type, its grid, its parameters by name.
struct Launch {
  std::string kernel;
  std::array<int64_t, 3> grid;
  Values values;
};

// The launches of one call, in order, and its workspace for intermediate results, in bytes.
struct Plan {
  std::vector<Launch> launches;
  int64_t workspace;
};

// tile: of the mode's kernel; part_tile: of the kernel for one part of the keys. Throws Error for sizes that the
// kernels do not take.
Plan make_plan(const Shape& shape, const Tile& tile, const Tile& part_tile);

// The plan for a GPU's compute capability times ten, with the tiles of the kernels that run there.
Plan plan_for(const Shape& shape, const KernelTable& table, int capability);

// Bytes of workspace on the GPU architecture that needs most: an engine may run on another one than it is built on.
int64_t most_workspace(const Shape& shape, const KernelTable& table);

}  // namespace page4d::plugin
