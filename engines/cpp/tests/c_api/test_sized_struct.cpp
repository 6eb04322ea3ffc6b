// Structs of programs that were compiled with an older or a newer header than the library.
#include <cstdint>
#include <vector>

#include "c_api/sized_struct.h"
#include "support/check.h"

using namespace page4d;

namespace {

struct Old {  // the first version
  size_t struct_size;
  int64_t a;
};
struct Current {
  size_t struct_size;
  int64_t a, b;
};
struct Newer {
  size_t struct_size;
  int64_t a, b, c, d;
};

constexpr size_t kFirst = PAGE4D_SIZE_UP_TO(Current, a);
static_assert(kFirst == sizeof(Old));

template <class T>
SizedStruct read(const T& program, Current& library) {
  return read_sized(reinterpret_cast<const Current*>(&program), kFirst, library);
}
template <class T>
SizedStruct write(const Current& library, T& program) {
  return write_sized(library, kFirst, reinterpret_cast<Current*>(&program));
}

void test_reading() {
  Current library{1, 2, 3};
  CHECK(read(Old{sizeof(Old), 7}, library) == SizedStruct::kFits);
  CHECK(library.a == 7 && library.b == 0 && library.struct_size == sizeof(Current));
  CHECK(read(Current{sizeof(Current), 8, 9}, library) == SizedStruct::kFits && library.a == 8 && library.b == 9);
  CHECK(read(Newer{sizeof(Newer), 5, 6, 0, 0}, library) == SizedStruct::kFits && library.a == 5 && library.b == 6);
  const Current before = library;
  CHECK(read(Newer{sizeof(Newer), 1, 1, 0, 1}, library) == SizedStruct::kUnknown);
  for (const size_t size : {size_t{0}, size_t{1}, sizeof(Old) - 1, kLargestStruct + 1, SIZE_MAX})
    CHECK(read(Current{size, 1, 1}, library) == SizedStruct::kWrongSize);
  CHECK(library.a == before.a && library.b == before.b);  // unchanged after a refusal
}

void test_writing() {
  struct {
    Old program;
    int64_t beyond;
  } guarded{{sizeof(Old), 0}, 77};
  CHECK(write(Current{0, 3, 4}, guarded.program) == SizedStruct::kFits);
  CHECK(guarded.program.a == 3 && guarded.program.struct_size == sizeof(Old) && guarded.beyond == 77);
  Newer newer{sizeof(Newer), 1, 1, 1, 1};
  CHECK(write(Current{0, 3, 4}, newer) == SizedStruct::kFits);
  CHECK(newer.a == 3 && newer.b == 4 && newer.c == 0 && newer.d == 0 && newer.struct_size == sizeof(Newer));
  for (const size_t size : {size_t{0}, sizeof(Old) - 1, SIZE_MAX}) {
    Current program{size, 1, 2};
    CHECK(write(Current{0, 3, 4}, program) == SizedStruct::kWrongSize && program.a == 1 && program.b == 2);
  }
}

// Under AddressSanitizer: nothing is read beyond a struct's own size.
void test_the_end_of_the_memory() {
  std::vector<unsigned char> memory(sizeof(Old));
  auto* program = reinterpret_cast<Current*>(memory.data());
  program->struct_size = sizeof(Old);
  Current library{};
  CHECK(read_sized(program, kFirst, library) == SizedStruct::kFits);
  CHECK(write_sized(Current{0, 3, 4}, kFirst, program) == SizedStruct::kFits && program->a == 3);
}

}  // namespace

int main() {
  test_reading();
  test_writing();
  test_the_end_of_the_memory();
}
