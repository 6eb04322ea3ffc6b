// The same program as C++.
#include "test_c_calls.c"  // NOLINT(bugprone-suspicious-include)
