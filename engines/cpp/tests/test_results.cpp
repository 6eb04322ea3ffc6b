// Results are moved, never copied, and a run writes into the object that it gets.
#include <type_traits>

#include "page4d/pipeline.h"
#include "support/folder.h"

using namespace page4d;

namespace {

static_assert(!std::is_copy_constructible_v<Results> && !std::is_copy_assignable_v<Results>);
static_assert(std::is_nothrow_move_constructible_v<Results> && std::is_nothrow_move_assignable_v<Results>);
static_assert(!std::is_copy_constructible_v<Pipeline> && std::is_nothrow_move_constructible_v<Pipeline>);

const std::filesystem::path kFolder = "engines of test_results";

std::string contents(const Results& results, const EngineInfo& info) {
  std::string all;
  for (const Tensor& tensor : info.outputs)
    all.append(static_cast<const char*>(results.data(tensor.name)), tensor.bytes);
  return all;
}

void fill(std::vector<unsigned char>& pixels, unsigned window) {
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<unsigned char>(i * 31 + 7 * window);
}

// A ring that grows by moves: every slot has the results of its own window.
void test_a_ring(const std::string& plan) {
  write_folder(kFolder, plan_named(plan));
  Options options;
  options.backend = Backend::kTest;
  Pipeline pipeline = Pipeline::load(kFolder.string(), options);
  const EngineInfo& info = pipeline.info();
  std::vector<unsigned char> pixels(static_cast<size_t>(info.layout.image_bytes()));
  const std::vector<Image> images(static_cast<size_t>(info.layout.images()),
                                  {pixels.data(), static_cast<int>(info.layout.W), static_cast<int>(info.layout.H)});
  const auto run = [&](const Results& results, unsigned window) {
    fill(pixels, window);
    CHECK_TEXT(pipeline.run({images.data()}, results.outputs()).message, "");
  };
  constexpr unsigned kSlots = 5;
  std::vector<Results> ring;
  std::vector<std::string> expected;
  for (unsigned window = 0; window < kSlots; ++window) {
    ring.emplace_back(info);
    run(ring.back(), window);
    expected.push_back(contents(ring.back(), info));
    CHECK(window == 0 || expected[window] != expected[window - 1]);
  }
  std::swap(ring[0], ring[3]);
  std::swap(expected[0], expected[3]);
  ring[1] = std::move(ring[4]);  // the last slot is empty now
  expected[1] = expected[4];
  for (unsigned slot = 0; slot + 1 < kSlots; ++slot) CHECK(contents(ring[slot], info) == expected[slot]);
  for (unsigned slot = 0; slot + 1 < kSlots; ++slot) run(ring[slot], 100 + slot);  // a move leaves the slots apart
  for (unsigned slot = 0; slot + 1 < kSlots; ++slot) {
    Results fresh(info);
    run(fresh, 100 + slot);
    CHECK(contents(fresh, info) == contents(ring[slot], info));
  }
  const Results& full = ring[0];
  const std::pair<const char*, const void*> accessors[] = {{"mask", full.mask()},
                                                           {"points", full.points()},
                                                           {"points_confidence", full.points_confidence()},
                                                           {"confidence", full.confidence()},
                                                           {"depth", full.depth()},
                                                           {"depth_confidence", full.depth_confidence()},
                                                           {"camera", full.camera()},
                                                           {"intrinsics", full.intrinsics()}};
  for (const auto& [name, memory] : accessors) CHECK(memory == full.data(name));
  const Results& empty = ring[4];
  CHECK(empty.mask() == nullptr && empty.camera() == nullptr && empty.outputs().layers[0].data == nullptr);
  for (const Tensor& tensor : info.outputs) CHECK(empty.data(tensor.name) == nullptr);
  run(empty, 0);  // into nothing
  Results& same = ring[0];
  const std::string before = contents(same, info);
  ring[0] = std::move(same);
  CHECK(contents(ring[0], info) == before);
}

void test_more_layers_than_a_program_takes() {
  EngineInfo info;
  for (int i = 0; i <= Outputs::kMostLayers; ++i) {
    CHECK(Results(info).outputs().layers[0].bytes == (i == 0 ? 0 : 4));
    info.outputs.push_back({"layers." + std::to_string(i), DType::kFloat32, {1}, 4});
  }
  CHECK_TEXT(refusal([&] { Results results(info); }),
             "the engines keep more layers than a program can take\n  allowed: 64");
}

}  // namespace

int main() {
  test_a_ring("default");
  test_a_ring("pi3");
  test_a_ring("vggt");
  test_more_layers_than_a_program_takes();
  std::filesystem::remove_all(kFolder);
}
