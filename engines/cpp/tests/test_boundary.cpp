// The public interface throws only Error, whatever fails inside.
#include <cerrno>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <system_error>

#include "boundary.h"
#include "page4d/fit.h"
#include "page4d/pipeline.h"
#include "page4d/rig.h"
#include "support/folder.h"

using namespace page4d;

namespace {

constexpr long kNever = -1;
constexpr size_t kLarge = 4096;
thread_local long allocations_left = kNever;  // on this thread, of those that count, until one fails
thread_local size_t least = 0;                // bytes of an allocation that counts
thread_local bool is_once = true;             // whether allocations after the one that fails succeed
thread_local bool has_failed = false;

void* allocate(size_t bytes) {
  if (allocations_left == 0 && bytes >= least) {
    if (is_once) allocations_left = kNever;
    has_failed = true;
    throw std::bad_alloc();
  }
  if (allocations_left > 0 && bytes >= least) --allocations_left;
  if (void* memory = std::malloc(bytes != 0 ? bytes : 1)) return memory;
  throw std::bad_alloc();
}

}  // namespace

// Not inlined: g++ would warn that free does not match new.
#define PAGE4D_REPLACED __attribute__((noinline))
PAGE4D_REPLACED void* operator new(size_t bytes) { return allocate(bytes); }
PAGE4D_REPLACED void* operator new[](size_t bytes) { return allocate(bytes); }
PAGE4D_REPLACED void operator delete(void* memory) noexcept { std::free(memory); }
PAGE4D_REPLACED void operator delete[](void* memory) noexcept { std::free(memory); }
PAGE4D_REPLACED void operator delete(void* memory, size_t) noexcept { std::free(memory); }
PAGE4D_REPLACED void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace {

const std::filesystem::path kFolder = "engines of test_boundary";

// Makes every allocation of `bytes` or more in the call fail: by itself, and together with all that follow.
template <class F>
void test_memory_that_ends(const char* name, size_t bytes, const F& call) {
  long failures = 0;
  least = bytes;
  for (const bool once : {true, false}) {
    for (long left = 0;; ++left) {
      Code code = Code::kOk;
      allocations_left = left, is_once = once, has_failed = false;
      try {
        call();
      } catch (const Error& error) {
        code = error.code();
      }  // anything else ends the program
      allocations_left = kNever;
      if (!has_failed) break;
      if (code != Code::kOutOfMemory) {
        std::fprintf(stderr, "%s, allocation %ld: code %d\n", name, left, static_cast<int>(code));
        std::exit(1);
      }
      ++failures;
    }
  }
  CHECK(failures > 1);
}

template <class E>
void test_what_comes_out(const E& thrown, Code code, const std::string& message) {
  try {
    only_errors([&]() -> int { throw thrown; });
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == code);
    CHECK_TEXT(error.what(), message);
  }
}

}  // namespace

int main() {
  CHECK(only_errors([] { return 7; }) == 7);
  test_what_comes_out(std::bad_alloc(), Code::kOutOfMemory, "out of memory");
  test_what_comes_out(std::length_error("vector"), Code::kOutOfMemory, "out of memory");
  test_what_comes_out(std::system_error(EAGAIN, std::generic_category()), Code::kFailure,
                      "the system refused a call\n  got:     Resource temporarily unavailable");
  test_what_comes_out(std::out_of_range("at"), Code::kFailure, "the system refused a call\n  got:     at");
  test_what_comes_out(Error(Code::kAccuracy, "as it was"), Code::kAccuracy, "as it was");

  for (const char* name : {"default", "pi3"}) {
    write_folder(kFolder, plan_named(name));
    const std::string folder = kFolder.string();
    const EngineInfo info = inspect(folder);
    Options options;
    options.backend = Backend::kTest;
    options.files = Files::kAll;
    // not the small allocations of reading a manifest: destructors of the JSON library allocate, and may not throw
    test_memory_that_ends("inspect", kLarge, [&] { inspect(folder, Files::kAll); });
    test_memory_that_ends("load", kLarge, [&] { Pipeline::load(folder, options); });
    test_memory_that_ends("Rig", 0, [&] { Rig rig(info); });
    test_memory_that_ends("ImageFit", 0, [&] { ImageFit fit(140, 112, info.layout, Fit::kNone); });
    test_memory_that_ends("Results", 0, [&] { Results results(info); });
  }
  EngineInfo huge;
  huge.layout = {60000, 60000, 14 * 4000, 14 * 4000, 1};
  CHECK_TEXT(refusal([&] { Rig rig(huge); }).substr(0, 58),
             "the images of the rig do not fit this machine's memory\n  g");
  huge.outputs.push_back({"points", DType::kFloat32, {1}, SIZE_MAX});
  CHECK_TEXT(refusal([&] { Results results(huge); }), "out of memory");
  std::filesystem::remove_all(kFolder);
}
