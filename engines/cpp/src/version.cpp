#include "page4d/version.h"

namespace page4d {

// PAGE4D_PACKAGE_VERSION_*: pyproject.toml's, by CMakeLists.txt
static_assert(PAGE4D_VERSION_NUMBER == 10000 * PAGE4D_PACKAGE_MAJOR + 100 * PAGE4D_PACKAGE_MINOR + PAGE4D_PACKAGE_PATCH,
              "version.h has another version than pyproject.toml");

const char* version() noexcept { return PAGE4D_VERSION; }

}  // namespace page4d
