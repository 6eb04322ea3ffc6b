#include "plan/launch_plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "error.h"

namespace page4d::plugin {
namespace {

constexpr double kLog2e = 1.0 / 0.69314718055994530942;  // 1 / ln 2
constexpr int64_t kPrepareBlock = 1024;                  // as the kernel is compiled
constexpr int64_t kGridLimit = 65535;                    // blocks along the grid's second and third axes
// two for each of the 132 multiprocessors of the largest Hopper
constexpr int64_t kEnoughBlocks = 264;
constexpr int64_t kLeastKeys = 512;  // of a part: fewer are not worth a merge
constexpr int64_t kMostParts = 64;   // as the kernel that merges is compiled
constexpr int64_t kWorkspaceAlignment = 256;

int64_t blocks_of(int64_t size, int64_t block) { return (size + block - 1) / block; }

// Keys of a part: whole tiles, the last part may have fewer.
int64_t chunk_of(int64_t keys, int64_t parts, const Tile& tile) {
  return blocks_of(keys, parts * tile.keys) * tile.keys;
}

// Into how many parts the keys are split: 1 unless few queries leave most of a GPU idle.
int64_t parts_of(const Shape& shape, const Tile& tile) {
  const int64_t blocks = blocks_of(shape.n, tile.queries) * shape.Z * shape.A;
  if (!of_parts(shape.mode) || blocks * 2 > kEnoughBlocks) return 1;
  const int64_t enough =
      std::max<int64_t>(1, std::min({blocks_of(kEnoughBlocks, blocks), shape.m / kLeastKeys, kMostParts}));
  return blocks_of(shape.m, chunk_of(shape.m, enough, tile));
}

// Elements from one sequence, head and row to the next; channels are contiguous.
struct Strides {
  int64_t z, a, n;
};

Strides strides_of(const Shape& shape, int64_t length) {
  return {shape.A * length * shape.D, length * shape.D, shape.D};
}

// Offsets of buffers in one block of memory, in bytes.
class Workspace {
 public:
  int64_t take(int64_t size) {
    return std::exchange(size_, size_ + blocks_of(size, kWorkspaceAlignment) * kWorkspaceAlignment);
  }
  int64_t size() const { return size_; }

 private:
  int64_t size_ = 0;
};

void check(const Shape& s) {
  if (std::min({s.Z, s.A, s.n, s.m}) < 1)
    throw Error("attention over an empty tensor")
        .got(text("Z=", s.Z, " A=", s.A, " n=", s.n, " m=", s.m))
        .allowed("all at least 1");
  // within these limits no product of sizes overflows 64 bits
  if (std::max({s.n, s.Z * s.m, s.A * s.segments}) > std::numeric_limits<int32_t>::max())
    throw Error("attention over a tensor with too long an axis")
        .got(text("Z=", s.Z, " A=", s.A, " n=", s.n, " m=", s.m))
        .allowed("n, Z*m and A*segments below 2^31");
  if ((s.D & (s.D - 1)) != 0 || s.D < 16 || s.D > 128)
    throw Error("no attention kernel for this head dimension").got(text(s.D)).allowed("a power of two, 16 .. 128");
  if (s.groups < 1 || s.n % s.groups != 0)
    throw Error("queries cannot be cut into equal groups")
        .got(text(s.n, " queries, ", s.groups, " groups"))
        .allowed("a divisor of the queries");
  if (keys_of(s.mode) == Keys::kViews && s.n != s.m)
    throw Error("the epipolar prior wants as many keys as queries")
        .got(text(s.n, " queries, ", s.m, " keys"))
        .allowed("n = m = V*N");
  if (s.rows &&
      (s.rows->period < 1 || s.n % s.rows->period != 0 || s.rows->leading < 0 || s.rows->leading > s.rows->period))
    throw Error("biased rows do not fit the queries")
        .got(text(s.n, " queries, period ", s.rows->period, ", leading ", s.rows->leading))
        .allowed("queries a multiple of period, leading <= period");
  if (std::max(s.groups, s.Z * s.A) > kGridLimit)
    throw Error("too many heads or query groups")
        .got(text("Z*A=", s.Z * s.A, ", groups=", s.groups))
        .allowed(text("at most ", kGridLimit, " each"));
}

std::string kernel_of(Mode mode) { return text("attention_", name_of(mode)); }

Value descriptor(Tensor tensor, const Shape& shape, const Tile& tile) {
  if (!tile.descriptors) return {};
  const Strides strides = strides_of(shape, shape.m);
  return Descriptor{tensor, {shape.Z, shape.A, shape.m, shape.D}, {strides.z, strides.a, strides.n, 1}, tile.keys};
}

Value ref_if(bool exists, Tensor tensor, int64_t offset = 0) { return exists ? Value(Ref{tensor, offset}) : Value(); }

// The pack has kernels for one head dimension; plans can be made for all that could be built.
void check_head_dim(const Shape& shape) {
  if (shape.D != kHeadDim)
    throw Error("no attention kernel in the pack for this head dimension").got(text(shape.D)).allowed(text(kHeadDim));
}

}  // namespace

bool Shape::operator==(const Shape& other) const {
  const auto all = [](const Shape& s) {
    return std::tie(s.mode, s.dtype, s.Z, s.A, s.n, s.m, s.D, s.groups, s.segments, s.rows, s.band, s.penalty);
  };
  return all(*this) == all(other);
}

Plan make_plan(const Shape& shape, const Tile& whole_tile, const Tile& part_tile) {
  check(shape);
  const int64_t parts = parts_of(shape, part_tile);
  const bool split = parts > 1;
  const Mode mode = split ? *of_parts(shape.mode) : shape.mode;
  const Tile& tile = split ? part_tile : whole_tile;
  const int64_t rows = split ? shape.n : shape.n / shape.groups;
  const Strides q = strides_of(shape, shape.n), k = strides_of(shape, shape.m), out = q;
  Workspace workspace;
  const int64_t bias = has_bias(mode) ? workspace.take(4 * shape.Z * shape.m) : 0;
  const int64_t part = split ? workspace.take(4 * parts * shape.Z * shape.A * shape.n * shape.D) : 0;
  const int64_t lse = split ? workspace.take(4 * parts * shape.Z * shape.A * shape.n) : 0;
  const bool segments = keys_of(mode) == Keys::kSegments, views = keys_of(mode) == Keys::kViews;
  Values values = {
      {"Q", Ref{Tensor::kQ}},
      {"K", Ref{Tensor::kK}},
      {"V", Ref{Tensor::kV}},
      {"KD", descriptor(Tensor::kK, shape, tile)},
      {"VD", descriptor(Tensor::kV, shape, tile)},
      {"OUT", split ? Ref{Tensor::kWorkspace, part} : Ref{Tensor::kOut}},
      {"LSE", ref_if(split, Tensor::kWorkspace, lse)},
      {"BIAS", ref_if(has_bias(mode), Tensor::kWorkspace, bias)},
      {"SEG_PTR", ref_if(segments, Tensor::kSegPtr)},
      {"SEG", ref_if(segments, Tensor::kSeg)},
      {"SEGMENT_BIAS", ref_if(mode == Mode::kSegmentsBiased, Tensor::kSegmentBias)},
      {"FUNDAMENTAL", ref_if(views, Tensor::kFundamental)},
      {"CENTRES", ref_if(views, Tensor::kCentres)},
      {"scale", kLog2e / std::sqrt(static_cast<double>(shape.D))},
      {"gain", shape.rows ? shape.rows->gain : 1.0},
      {"band", shape.band},
      {"penalty", shape.penalty * kLog2e},
      {"q_z", q.z},
      {"q_a", q.a},
      {"q_g", split ? 0 : rows * q.n},
      {"k_z", k.z},
      {"k_a", k.a},
      {"v_z", k.z},
      {"v_a", k.a},
      {"out_z", split ? shape.A * parts * rows * shape.D : out.z},
      {"out_a", split ? parts * rows * shape.D : out.a},
      {"out_g", split ? rows * shape.D : rows * out.n},
      {"bias_z", shape.m},
      {"q_n", q.n},
      {"k_n", k.n},
      {"v_n", k.n},
      {"out_n", split ? shape.D : out.n},
      {"heads", shape.A},
      {"rows", rows},
      {"keys", shape.m},
      {"chunk", split ? chunk_of(shape.m, parts, tile) : shape.m},
      {"segments", shape.segments},
      {"views", shape.groups},
      {"period", shape.rows ? shape.rows->period : 1},
      {"leading", shape.rows ? shape.rows->leading : 1},
  };
  std::vector<Launch> launches;
  if (has_bias(mode)) {
    const int64_t count = shape.Z * shape.m;
    Values prepare = {{"BIAS", Ref{Tensor::kKeyBias}}, {"OUT", Ref{Tensor::kWorkspace, bias}}, {"count", count}};
    launches.push_back({"prepare", {blocks_of(count, kPrepareBlock), 1, 1}, std::move(prepare)});
  }
  launches.push_back({kernel_of(mode),
                      {blocks_of(rows, tile.queries), split ? parts : shape.groups, shape.Z * shape.A},
                      std::move(values)});
  if (split) {
    Values merge = {{"PART", Ref{Tensor::kWorkspace, part}},
                    {"LSE", Ref{Tensor::kWorkspace, lse}},
                    {"OUT", Ref{Tensor::kOut}},
                    {"out_z", out.z},
                    {"out_a", out.a},
                    {"out_n", out.n},
                    {"heads", shape.A},
                    {"rows", rows},
                    {"parts", parts}};
    launches.push_back({"merge", {rows, shape.Z * shape.A, 1}, std::move(merge)});
  }
  return {std::move(launches), workspace.size()};
}

Plan plan_for(const Shape& shape, const KernelTable& table, int capability) {
  const auto tile = [&](Mode mode) -> const Tile& {
    return table.kernel(kernel_of(mode), shape.dtype, capability).tile;
  };
  Plan plan = make_plan(shape, tile(shape.mode), tile(of_parts(shape.mode).value_or(shape.mode)));
  check_head_dim(shape);
  return plan;
}

int64_t most_workspace(const Shape& shape, const KernelTable& table) {
  const std::string name = kernel_of(shape.mode), part_name = kernel_of(of_parts(shape.mode).value_or(shape.mode));
  int64_t most = 0;
  for (const Entry& entry : table.entries()) {
    if (entry.dtype != shape.dtype || entry.kernel != name) continue;
    const Entry* part = table.find(part_name, shape.dtype, entry.chip);
    if (part != nullptr) most = std::max(most, make_plan(shape, entry.tile, part->tile).workspace);
  }
  check_head_dim(shape);
  return most;
}

}  // namespace page4d::plugin
