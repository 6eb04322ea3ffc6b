/* Marks the names that the library exports. */
#pragma once

#if defined(_WIN32)
#define PAGE4D_API
#else
#define PAGE4D_API __attribute__((visibility("default")))
#endif
