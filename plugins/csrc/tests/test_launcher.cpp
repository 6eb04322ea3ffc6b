// Loading and launching: the calls that the driver gets.
#include <cstring>

#include "check.h"
#include "fake_driver.h"
#include "launch/launcher.h"
#include "plan/node.h"

using namespace page4d::plugin;

namespace {

const Node::Dims kFew = {1, 2, 32, 64}, kMany = {1, 2, 9000, 64};
const Node kBiased(Op::kBiasedAttention, {});

Shape split_call(Dtype dtype) { return kBiased.shape({kFew, kMany, kMany, {1, 9000}}, dtype); }

Addresses addresses_at(uint64_t base) {
  Addresses addresses;
  for (size_t i = 0; i < kTensors; ++i) addresses[i] = base + (uint64_t{i} << 20);
  return addresses;
}

void no_gpu_is_asked_again() {
  fake_driver().init_result = 100;
  CHECK(refusal([] { Launcher(split_call(Dtype::kFloat16), KernelTable::embedded()); }) == "no GPU driver answers");
  fake_driver().init_result = 0;
  Driver::get();
}

void three_kernels() {
  fake_driver() = {};
  const KernelTable& table = KernelTable::embedded();
  Launcher launcher(split_call(Dtype::kFloat16), table);
  CHECK(fake_driver().libraries == 3 && fake_driver().prepared == 3 && fake_driver().launches.empty());
  CHECK((fake_driver().symbols == std::vector<std::string>{"prepare", "attention", "merge"}));

  int stream = 0;
  launcher.launch(addresses_at(1 << 30), reinterpret_cast<cuda::Stream>(&stream));
  CHECK(fake_driver().launches.size() == 3 && fake_driver().maps.size() == 2);
  const Plan plan = plan_for(split_call(Dtype::kFloat16), table, 90);
  for (size_t i = 0; i < 3; ++i) {
    const FakeLaunch& launch = fake_driver().launches[i];
    const Entry& entry = table.kernel(plan.launches[i].kernel, Dtype::kFloat16, 90);
    CHECK(launch.kernel == entry.code && launch.shared == entry.shared && fake_driver().shared[i] == entry.shared &&
          launch.stream == &stream);
    CHECK((launch.block == std::array<unsigned, 3>{entry.threads, 1, 1}));
    for (size_t axis = 0; axis < 3; ++axis) CHECK(launch.grid[axis] == plan.launches[i].grid[axis]);
  }
  uint64_t q = 0;
  std::memcpy(&q, fake_driver().launches[1].parameters[0], sizeof(q));
  CHECK(q == 1 << 30);

  const FakeMap& keys = fake_driver().maps[0];
  CHECK(keys.address == reinterpret_cast<void*>((1 << 30) + (1 << 20)) && keys.type == 6);
  CHECK((keys.sizes == std::array<unsigned long, 4>{64, 9000, 2, 1}) &&
        (keys.strides == std::array<unsigned long, 3>{128, 9000 * 128, 2 * 9000 * 128}));
  CHECK((keys.box == std::array<unsigned, 4>{64, 64, 1, 1}));

  launcher.launch(addresses_at(1 << 30), nullptr);
  CHECK(fake_driver().launches.size() == 6 && fake_driver().maps.size() == 2);  // the addresses are the same
  Launcher other(split_call(Dtype::kFloat16), table);
  // code is loaded once, and prepared for each launcher
  CHECK(fake_driver().libraries == 3 && fake_driver().prepared == 6);
}

void other_types_and_architectures() {
  fake_driver() = {};
  Launcher bf16(split_call(Dtype::kBfloat16), KernelTable::embedded());
  bf16.launch(addresses_at(0), nullptr);
  CHECK(fake_driver().libraries == 3 && fake_driver().maps.at(1).type == 9);
  fake_driver().capability = 88;  // no code of its own: PTX
  Launcher ptx(split_call(Dtype::kBfloat16), KernelTable::embedded());
  ptx.launch(addresses_at(0), nullptr);
  CHECK(fake_driver().libraries == 6 && fake_driver().maps.size() == 2);
  CHECK(fake_driver().launches.at(4).kernel ==
        KernelTable::embedded().kernel("attention_partial_biased", Dtype::kBfloat16, 88).code);
  fake_driver().capability = 75;
  CHECK(refusal([] { Launcher(split_call(Dtype::kFloat16), KernelTable::embedded()); }) ==
        "the attention kernels do not run on this GPU");
}

// A driver that is older than the assembler of its GPU's code: the PTX, planned with the PTX kernels' tiles.
void a_refused_cubin() {
  const KernelTable& table = KernelTable::embedded();
  const Shape shape = split_call(Dtype::kFloat16);
  for (const int capability : {87, 100, 120}) {
    fake_driver() = {};
    fake_driver().capability = capability;
    fake_driver().refuses_cubins = true;
    Launcher launcher(shape, table);
    launcher.launch(addresses_at(0), nullptr);
    const Plan plan = plan_for(shape, table, kPtx);
    CHECK(fake_driver().launches.size() == plan.launches.size() && plan.workspace <= most_workspace(shape, table));
    for (size_t i = 0; i < plan.launches.size(); ++i) {
      const Entry* entry = table.find(plan.launches[i].kernel, Dtype::kFloat16, kPtx);
      const FakeLaunch& launch = fake_driver().launches[i];
      CHECK(launch.kernel == entry->code && launch.shared == entry->shared && launch.block[0] == entry->threads);
      for (size_t axis = 0; axis < 3; ++axis) CHECK(launch.grid[axis] == plan.launches[i].grid[axis]);
    }
  }
  for (const int capability : {100, 88}) {  // with code of its own, and without
    fake_driver() = {};
    fake_driver().capability = capability;
    fake_driver().refuses_cubins = fake_driver().refuses_ptx = true;
    CHECK(refusal([&] { Launcher(kBiased.shape({kFew, kMany, kMany}, Dtype::kBfloat16), table); }) ==
          "the CUDA driver refused a call of the attention kernels");
  }
}

void a_refused_launch() {
  fake_driver() = {};
  Launcher launcher(kBiased.shape({kFew, kFew, kFew}, Dtype::kFloat16), KernelTable::embedded());
  fake_driver().launch_result = 1;
  try {
    launcher.launch(addresses_at(0), nullptr);
    CHECK(false);
  } catch (const Error& error) {
    CHECK(std::string(error.what()) ==
          "the CUDA driver refused a call of the attention kernels\n  got:     cuLaunchKernel: CUDA_ERROR_FAKE");
  }
}

}  // namespace

int main() {
  no_gpu_is_asked_again();
  three_kernels();
  other_types_and_architectures();
  a_refused_cubin();
  a_refused_launch();
}
