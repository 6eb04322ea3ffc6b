#include "runtime/device.h"

#include "page4d/error.h"

namespace page4d {

void Entered::check() const {
  if (failure_ != nullptr) throw Error(Code::kFailure, "the GPU's context cannot be made current").got(failure_);
}

}  // namespace page4d
