#include "check.h"
#include "plan/launch_plan.h"

using namespace page4d::plugin;

namespace {

constexpr Tile kTile = {128, 64, false}, kPart = {64, 64, false};

Shape shape_of(Mode mode, int64_t Z, int64_t A, int64_t n, int64_t m) {
  Shape shape{};
  shape.mode = mode, shape.Z = Z, shape.A = A, shape.n = n, shape.m = m;
  return shape;
}

int64_t integer(const Launch& launch, const char* name) { return std::get<int64_t>(launch.values.at(name)); }
Ref ref(const Launch& launch, const char* name) { return std::get<Ref>(launch.values.at(name)); }

void one_kernel() {
  const Plan plan = make_plan(shape_of(Mode::kDense, 2, 16, 1000, 3000), kTile, kPart);
  CHECK(plan.launches.size() == 1 && plan.workspace == 0);
  const Launch& launch = plan.launches[0];
  CHECK(launch.kernel == "attention_dense");
  CHECK((launch.grid == std::array<int64_t, 3>{8, 1, 32}));
  CHECK(integer(launch, "chunk") == 3000 && integer(launch, "q_z") == 16 * 1000 * 64 &&
        integer(launch, "k_a") == 3000 * 64);
  CHECK(std::holds_alternative<std::monostate>(launch.values.at("KD")) &&
        std::holds_alternative<std::monostate>(launch.values.at("BIAS")));
  CHECK(std::get<double>(launch.values.at("gain")) == 1.0);
}

void bias_is_prepared() {
  Shape shape = shape_of(Mode::kSegmentsBiased, 2, 16, 1000, 3000);
  shape.groups = 10, shape.segments = 30;
  const Plan plan = make_plan(shape, {128, 128, true}, kPart);
  CHECK(plan.launches.size() == 2 && plan.workspace == 24064);  // 2 * 3000 floats, to the next multiple of 256
  CHECK(plan.launches[0].kernel == "prepare" && (plan.launches[0].grid == std::array<int64_t, 3>{6, 1, 1}));
  CHECK(ref(plan.launches[0], "BIAS").tensor == Tensor::kKeyBias &&
        ref(plan.launches[1], "BIAS").tensor == Tensor::kWorkspace);
  CHECK((plan.launches[1].grid == std::array<int64_t, 3>{1, 10, 32}));
  CHECK(ref(plan.launches[1], "SEGMENT_BIAS").tensor == Tensor::kSegmentBias);
  const auto& keys = std::get<Descriptor>(plan.launches[1].values.at("KD"));
  CHECK(keys.keys == 128 && keys.strides[0] == 16 * 3000 * 64 && keys.strides[3] == 1);
}

void few_queries_split_the_keys() {
  const Plan plan = make_plan(shape_of(Mode::kBiased, 1, 16, 32, 21984), kTile, kPart);
  CHECK(plan.launches.size() == 3 && plan.launches[1].kernel == "attention_partial_biased" &&
        plan.launches[2].kernel == "merge");
  const int64_t parts = plan.launches[1].grid[1];
  CHECK(parts == integer(plan.launches[2], "parts") && parts > 8 && parts <= 64);
  const int64_t chunk = integer(plan.launches[1], "chunk");
  CHECK(chunk % 64 == 0 && chunk * parts >= 21984 && chunk * (parts - 1) < 21984);
  CHECK((plan.launches[2].grid == std::array<int64_t, 3>{32, 16, 1}));
  CHECK(ref(plan.launches[1], "LSE").offset == ref(plan.launches[2], "LSE").offset);
  CHECK(plan.workspace >= 4 * (21984 + parts * 16 * 32 * 65));
}

void refusals() {
  const auto refused = [](const Shape& shape) { return refusal([&] { make_plan(shape, kTile, kPart); }); };
  CHECK(refused(shape_of(Mode::kDense, 1, 1, 0, 4)) == "attention over an empty tensor");
  CHECK(refused(shape_of(Mode::kDense, 1, 1, int64_t{1} << 40, 4)) == "attention over a tensor with too long an axis");
  CHECK(refused(shape_of(Mode::kDense, 256, 256, 4, 4)) == "too many heads or query groups");
  CHECK(refused(shape_of(Mode::kEpipolar, 1, 1, 4, 8)) == "the epipolar prior wants as many keys as queries");
  Shape shape = shape_of(Mode::kSegments, 1, 1, 9, 8);
  shape.groups = 2;
  CHECK(refused(shape) == "queries cannot be cut into equal groups");
  shape.groups = 0;
  CHECK(refused(shape) == "queries cannot be cut into equal groups");
  shape = shape_of(Mode::kRows, 1, 1, 8, 8);
  for (const BiasedRows& rows : {BiasedRows{3, 1, 1}, BiasedRows{4, 5, 1}, BiasedRows{0, 0, 1}, BiasedRows{4, -1, 1}}) {
    shape.rows = rows;
    CHECK(refused(shape) == "biased rows do not fit the queries");
  }
  shape = shape_of(Mode::kDense, 1, 1, 8, 8);
  shape.D = 48;
  CHECK(refused(shape) == "no attention kernel for this head dimension");
  shape.D = 128;
  CHECK(make_plan(shape, kTile, kPart).launches.size() == 1);
  for (const std::string& refused_for : {refusal([&] { plan_for(shape, KernelTable::embedded(), 90); }),
                                         refusal([&] { most_workspace(shape, KernelTable::embedded()); })})
    CHECK(refused_for == "no attention kernel in the pack for this head dimension");
}

void workspace_suffices_on_every_architecture() {
  for (Mode mode : {Mode::kDense, Mode::kBiased, Mode::kRows, Mode::kSegments}) {
    const Shape shape = shape_of(mode, 1, 16, 32, 21984);
    const int64_t most = most_workspace(shape, KernelTable::embedded());
    CHECK((most > 0) == (mode != Mode::kDense || of_parts(mode)));
    for (int capability : {80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121, 200})
      CHECK(plan_for(shape, KernelTable::embedded(), capability).workspace <= most);
  }
}

}  // namespace

int main() {
  one_kernel();
  bias_is_prepared();
  few_queries_split_the_keys();
  refusals();
  workspace_suffices_on_every_architecture();
}
