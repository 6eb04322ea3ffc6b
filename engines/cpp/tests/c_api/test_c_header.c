/* The C interface's header compiles by itself. */
#include "page4d/page4d.h"

int page4d_test_header(const page4d_outputs* outputs);
int page4d_test_header(const page4d_outputs* outputs) {
  page4d_options options = PAGE4D_OPTIONS_INIT;
  page4d_frames frames = PAGE4D_FRAMES_INIT;
  page4d_image image = PAGE4D_IMAGE_INIT;
  page4d_outputs no_outputs = PAGE4D_OUTPUTS_INIT;
  page4d_layout layout = PAGE4D_LAYOUT_INIT;
  page4d_tensor tensor = PAGE4D_TENSOR_INIT;
  page4d_rig_options rig_options = PAGE4D_RIG_OPTIONS_INIT;
  page4d_window window = PAGE4D_WINDOW_INIT;
  page4d_rig_counts rig_counts = PAGE4D_RIG_COUNTS_INIT;
  page4d_camera_counts camera_counts = PAGE4D_CAMERA_COUNTS_INIT;
  const size_t sum = options.struct_size + frames.struct_size + no_outputs.struct_size + layout.struct_size +
                     tensor.struct_size + rig_options.struct_size + window.struct_size + rig_counts.struct_size +
                     camera_counts.struct_size + image.pitch;
  return page4d_load("engines", &options, NULL) + (int)(outputs->layer_count + (int64_t)sum);
}
