/* What is visible of the library. */
#pragma once

#if defined(_WIN32)
#define PAGE4D_API
#else
#define PAGE4D_API __attribute__((visibility("default")))
#endif
