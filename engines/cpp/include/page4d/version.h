/* The version of these headers, that of the package; page4d_version() gives the library's. C89 and C++. */
#ifndef PAGE4D_VERSION_H
#define PAGE4D_VERSION_H

#include "page4d/export.h"

#define PAGE4D_VERSION "0.1.0"
#define PAGE4D_VERSION_NUMBER 100 /* 10000 * major + 100 * minor + patch */

#ifdef __cplusplus
namespace page4d {

/* The library's version, "0.1.0": compare it with PAGE4D_VERSION to see that a program runs with the library that it
 * was compiled for. A constant; any thread. */
PAGE4D_API const char* version() noexcept;

} /* namespace page4d */
#endif

#endif
