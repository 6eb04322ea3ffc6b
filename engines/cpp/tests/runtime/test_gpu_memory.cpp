// Whether buffers fit: on a GPU that shares the host's memory the page cache counts as free.
#include <filesystem>

#include "cuda/host_memory.h"
#include "runtime/window_cases.h"

using namespace page4d;

namespace {

void test_what_the_kernel_says() {
  const std::string path = "meminfo of test_gpu_memory";
  const auto available = [&](const char* content) {
    write_file(std::filesystem::absolute(path), content);
    return available_host_memory(path);
  };
  CHECK(available("MemTotal:       65536 kB\nMemFree:          100 kB\nMemAvailable:   32768 kB\nBuffers: 1 kB\n") ==
        size_t{32} << 20);
  CHECK(available("MemTotal: 1 kB\nMemAvailable:7 kB\n") == std::nullopt);  // not as the kernel writes it
  CHECK(available("MemTotal: 1 kB\nMemAvailable: many kB\n") == std::nullopt);
  CHECK(available("MemFree: 100 kB\n") == std::nullopt && available("") == std::nullopt);
  std::filesystem::remove(path);
  CHECK(available_host_memory(path) == std::nullopt);
  CHECK(available_host_memory().value() > size_t{1} << 20);
}

void test_files_that_were_read() {
  const Manifest manifest = parse_manifest(plan_named("default").dump(), "");
  const size_t limit = size_t{4} << 30;
  const auto refusal_now = [&] {
    const std::string message = refusal([&] {
      CudaDevice device(0);
      Loader loader(device);
      const Entered entered(device);
      WindowRunner runner(manifest, loader, constants_of(manifest), options_for(manifest));
      const WindowInputs inputs(manifest, 1);
      Results results(runner.info());
      CHECK(runner.run(inputs.frames(), results.outputs(), nullptr).ok());
    });
    return first_line(message);
  };
  Caller::integrated(true, limit - 1000);
  CHECK_TEXT(refusal_now(), "nothing is thrown");
  Caller::limit(1 << 16);  // less than there should be: the allocation has the last word
  CHECK_TEXT(refusal_now(), "the GPU has too little memory left");
  Caller::limit(limit);
  Caller::integrated(false, limit - 1000);
  CHECK_TEXT(refusal_now(), "buffers and scratch do not fit the GPU");
  Caller::integrated(false, 0);
  CHECK_TEXT(refusal_now(), "nothing is thrown");
}

}  // namespace

int main() {
  test_what_the_kernel_says();
  test_files_that_were_read();
}
