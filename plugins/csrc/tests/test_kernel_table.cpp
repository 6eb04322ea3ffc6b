#include <cstring>
#include <set>

#include "check.h"
#include "kernels/kernel_table.h"

using namespace page4d::plugin;

namespace {

void own_architecture_else_ptx() {
  const KernelTable& table = KernelTable::embedded();
  std::set<int> architectures;
  for (const Entry& entry : table.entries()) architectures.insert(entry.chip);
  CHECK(architectures.count(kPtx) == 1);
  for (int capability = kFallback; capability < 200; ++capability)
    for (Dtype dtype : {Dtype::kFloat16, Dtype::kBfloat16}) {
      const Entry& entry = table.kernel("attention_biased", dtype, capability);
      CHECK(entry.chip == (architectures.count(capability) == 1 ? capability : kPtx) && entry.dtype == dtype &&
            entry.kernel == "attention_biased");
    }
  CHECK(table.kernel("merge", Dtype::kFloat16, 90).path() == "sm_90/merge_fp16.cubin");
  CHECK(table.kernel("merge", Dtype::kBfloat16, 88).path() == "ptx/merge_bf16.ptx");
}

void refusals() {
  const KernelTable& table = KernelTable::embedded();
  CHECK(refusal([&] { table.kernel("merge", Dtype::kFloat16, 75); }) == "the attention kernels do not run on this GPU");
  CHECK(refusal([&] { table.kernel("attention_other", Dtype::kFloat16, 90); }) == "the kernel pack lacks a kernel");
  const Entry& merge = table.kernel("merge", Dtype::kFloat16, 90);
  const KernelTable merge_alone(View<Entry>(&merge, 1));
  CHECK(&merge_alone.kernel("merge", Dtype::kFloat16, 90) == &merge);
  CHECK(refusal([&] { merge_alone.kernel("merge", Dtype::kFloat16, 100); }) == "the kernel pack lacks a kernel");
}

void every_kernel_has_code() {
  std::set<std::string> paths;
  for (const Entry& entry : KernelTable::embedded().entries()) {
    CHECK(paths.insert(entry.path()).second);
    CHECK(entry.threads % 32 == 0 && entry.threads > 0 && entry.threads <= 1024);
    CHECK(entry.parameters.size() > 0 && entry.tile.queries > 0 && entry.tile.keys > 0);
    const char* code = reinterpret_cast<const char*>(entry.code);
    if (entry.chip == kPtx)
      CHECK(std::strstr(code, text(".entry ", entry.symbol, "(").c_str()) != nullptr);
    else
      CHECK(std::memcmp(code, "\177ELF", 4) == 0);
  }
}

}  // namespace

int main() {
  own_architecture_else_ptx();
  refusals();
  every_kernel_has_code();
}
