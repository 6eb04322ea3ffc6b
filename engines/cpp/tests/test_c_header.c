/* The C interface's header compiles by itself. */
#include "page4d/page4d.h"

int page4d_test_header(const page4d_outputs* outputs);
int page4d_test_header(const page4d_outputs* outputs) {
  page4d_options options = {0};
  return page4d_load("engines", &options, NULL) + outputs->layer_count;
}
