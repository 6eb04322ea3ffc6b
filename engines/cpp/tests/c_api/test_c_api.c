/* The C interface in a program in C: load, run, refusals, a rig. Includes page4d.h alone. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "page4d/page4d.h"

#define CHECK(condition)                                                                   \
  do {                                                                                     \
    if (!(condition)) {                                                                    \
      fprintf(stderr, "%d: not so: %s (%s)\n", __LINE__, #condition, page4d_last_error()); \
      return 1;                                                                            \
    }                                                                                      \
  } while (0)

_Static_assert(sizeof(void*) != 8 || sizeof(page4d_image) == 80, "images lie in arrays: their size is fixed for good");

/* Three black images of the engines' size. */
static void black_images(page4d_image images[3]) {
  static const unsigned char pixels[56 * 70 * 3];
  memset(images, 0, 3 * sizeof *images);
  for (int i = 0; i < 3; ++i) {
    images[i].data = pixels;
    images[i].width = 70;
    images[i].height = 56;
  }
}

/* A null argument is refused by a code, or by zeros if the call returns no code. */
static int test_nulls(page4d_pipeline* pipeline, page4d_rig* rig, const page4d_image* image) {
  page4d_layout layout = PAGE4D_LAYOUT_INIT;
  page4d_tensor tensor = PAGE4D_TENSOR_INIT;
  page4d_window window = PAGE4D_WINDOW_INIT;
  page4d_frames frames = PAGE4D_FRAMES_INIT;
  page4d_outputs outputs = PAGE4D_OUTPUTS_INIT;
  page4d_pipeline* no_pipeline = NULL;
  page4d_rig* no_rig = NULL;
  page4d_rig_counts counts = PAGE4D_RIG_COUNTS_INIT;
  page4d_camera_counts camera = PAGE4D_CAMERA_COUNTS_INIT;
  CHECK(page4d_layout_of(NULL, &layout) == PAGE4D_USAGE && page4d_layout_of(pipeline, NULL) == PAGE4D_USAGE);
  CHECK(page4d_rig_counts_of(NULL, &counts) == PAGE4D_USAGE && page4d_rig_counts_of(rig, NULL) == PAGE4D_USAGE);
  CHECK(page4d_rig_camera_counts(NULL, 0, &camera) == PAGE4D_USAGE);
  CHECK(page4d_rig_camera_counts(rig, 0, NULL) == PAGE4D_USAGE);
  CHECK(page4d_described(NULL) == NULL && page4d_takes_present(NULL) == 0 && page4d_stage_count(NULL) == 0);
  CHECK(page4d_warning_count(NULL) == 0 && page4d_warning(NULL, 0) == NULL);
  CHECK(page4d_stage_time(NULL, 0, NULL, NULL) == PAGE4D_USAGE);
  CHECK(page4d_input_count(NULL) == 0 && page4d_input_tensor(NULL, 0, &tensor) == PAGE4D_USAGE);
  CHECK(page4d_input_tensor(pipeline, 0, NULL) == PAGE4D_USAGE);
  CHECK(page4d_rig_wait(NULL, 0) == -1 && page4d_rig_closed(NULL) == 0);
  page4d_rig_close(NULL);
  CHECK(page4d_load(NULL, NULL, &no_pipeline) == PAGE4D_USAGE);
  CHECK(page4d_load("engines", NULL, NULL) == PAGE4D_USAGE);
  CHECK(strcmp(page4d_last_error(), "an argument is null\n  got:     pipeline") == 0);
  CHECK(page4d_output_count(NULL) == 0);
  CHECK(page4d_output_tensor(NULL, 0, &tensor) == PAGE4D_USAGE);
  CHECK(page4d_output_tensor(pipeline, 0, NULL) == PAGE4D_USAGE);
  CHECK(page4d_run(NULL, &frames, &outputs, NULL) == PAGE4D_USAGE);
  CHECK(page4d_run(pipeline, NULL, &outputs, NULL) == PAGE4D_USAGE);
  CHECK(page4d_run(pipeline, &frames, NULL, NULL) == PAGE4D_USAGE);
  CHECK(page4d_rig_make(NULL, NULL, &no_rig) == PAGE4D_USAGE && no_rig == NULL);
  CHECK(page4d_rig_make(pipeline, NULL, NULL) == PAGE4D_USAGE);
  CHECK(page4d_rig_push(NULL, 0, image, 1, NULL) == PAGE4D_USAGE);
  CHECK(page4d_rig_push(rig, 0, NULL, 1, NULL) == PAGE4D_USAGE);
  CHECK(page4d_rig_take(NULL, &window) == -1 && page4d_rig_take(rig, NULL) == -1);
  CHECK(strcmp(page4d_last_error(), "an argument is null\n  got:     window") == 0);
  page4d_rig_release(NULL);
  page4d_rig_free(NULL);
  page4d_free(NULL);
  return 0;
}

/* Depth, cameras and intrinsics of VGGT's heads, and the points in the world that follow from them. */
static int test_world_points(const char* folder) {
  page4d_options options = PAGE4D_OPTIONS_INIT;
  page4d_pipeline* pipeline = NULL;
  page4d_outputs outputs = PAGE4D_OUTPUTS_INIT;
  page4d_frames frames = PAGE4D_FRAMES_INIT;
  page4d_image images[3];
  int outputs_found = 0;
  options.backend = PAGE4D_TEST;
  CHECK(page4d_load(folder, &options, &pipeline) == PAGE4D_OK);
  const struct {
    const char* name;
    page4d_output* output;
  } named[] = {{"points", &outputs.points}, {"points_confidence", &outputs.points_confidence},
               {"depth", &outputs.depth},   {"depth_confidence", &outputs.depth_confidence},
               {"camera", &outputs.camera}, {"intrinsics", &outputs.intrinsics}};
  for (int32_t i = 0; i < page4d_output_count(pipeline); ++i) {
    page4d_tensor tensor = PAGE4D_TENSOR_INIT;
    CHECK(page4d_output_tensor(pipeline, i, &tensor) == PAGE4D_OK);
    for (size_t k = 0; k < sizeof named / sizeof *named; ++k) {
      if (strcmp(tensor.name, named[k].name) != 0) continue;
      named[k].output->data = calloc(1, tensor.bytes);
      named[k].output->bytes = tensor.bytes;
      ++outputs_found;
    }
  }
  CHECK(outputs_found == 6);
  black_images(images);
  frames.images = images;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_OK);

  const size_t bytes = (size_t)3 * 56 * 70 * 3 * sizeof(float);
  float *from_depth = calloc(1, bytes), *from_points = calloc(1, bytes), *best = calloc(1, bytes);
  CHECK(page4d_world_points(pipeline, &outputs, PAGE4D_FROM_BEST, best, bytes) == PAGE4D_OK);
  CHECK(page4d_world_points(pipeline, &outputs, PAGE4D_FROM_DEPTH, from_depth, bytes) == PAGE4D_OK);
  CHECK(page4d_world_points(pipeline, &outputs, PAGE4D_FROM_POINTS, from_points, bytes) == PAGE4D_OK);
  CHECK(memcmp(best, from_depth, bytes) == 0 && memcmp(best, from_points, bytes) != 0);
  CHECK(memcmp(from_points, outputs.points.data, bytes) == 0); /* they are in the world */
  CHECK(page4d_world_points(pipeline, &outputs, PAGE4D_FROM_DEPTH, best, bytes - 1) == PAGE4D_USAGE);
  CHECK(strncmp(page4d_last_error(), "the memory for points in the world is too small\n", 48) == 0);
  CHECK(page4d_world_points(pipeline, &outputs, 3, best, bytes) == PAGE4D_USAGE);
  CHECK(page4d_world_points(NULL, &outputs, 0, best, bytes) == PAGE4D_USAGE);
  CHECK(page4d_world_points(pipeline, NULL, 0, best, bytes) == PAGE4D_USAGE);
  CHECK(page4d_world_points(pipeline, &outputs, 0, NULL, bytes) == PAGE4D_USAGE);
  void* depth = outputs.depth.data;
  outputs.depth.data = NULL;
  CHECK(page4d_world_points(pipeline, &outputs, PAGE4D_FROM_DEPTH, best, bytes) == PAGE4D_USAGE);
  CHECK(page4d_world_points(pipeline, &outputs, PAGE4D_FROM_BEST, best, bytes) == PAGE4D_OK);
  CHECK(memcmp(best, from_points, bytes) == 0);
  outputs.depth.data = depth;

  page4d_free(pipeline);
  for (size_t k = 0; k < sizeof named / sizeof *named; ++k) free(named[k].output->data);
  free(from_depth);
  free(from_points);
  free(best);
  return 0;
}

/* Pi3X gives metres, and how many of them its own unit is. */
static int test_metres(const char* folder) {
  page4d_options options = PAGE4D_OPTIONS_INIT;
  page4d_pipeline* pipeline = NULL;
  page4d_outputs outputs = PAGE4D_OUTPUTS_INIT;
  page4d_frames frames = PAGE4D_FRAMES_INIT;
  page4d_image images[3];
  page4d_layout layout = PAGE4D_LAYOUT_INIT;
  float metric = 0;
  options.backend = PAGE4D_TEST;
  CHECK(page4d_load(folder, &options, &pipeline) == PAGE4D_OK);
  CHECK(strcmp(page4d_unit(pipeline), "metres") == 0 && page4d_unit(NULL) == NULL);
  CHECK(page4d_layout_of(pipeline, &layout) == PAGE4D_OK && layout.registers == 4);
  black_images(images);
  frames.images = images;
  outputs.metric.data = &metric;
  outputs.metric.bytes = sizeof metric;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_OK);
  CHECK(metric > 0);
  outputs.sky = outputs.metric;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_USAGE);
  page4d_free(pipeline);
  return 0;
}

int main(int argc, char** argv) {
  page4d_layout layout = PAGE4D_LAYOUT_INIT;
  size_t bytes = 0;
  CHECK(argc == 4);
  CHECK(test_world_points(argv[2]) == 0);
  CHECK(test_metres(argv[3]) == 0);
  CHECK(page4d_inspect(argv[1], &layout, &bytes) == PAGE4D_OK);
  CHECK(layout.T == 1 && layout.V == 3 && layout.H == 56 && layout.W == 70 && bytes > 0);
  CHECK(page4d_inspect("no/such/folder", NULL, NULL) == PAGE4D_INCOMPATIBLE);
  CHECK(strncmp(page4d_last_error(), "there is no such engine folder\n", 31) == 0);
  CHECK(page4d_inspect(NULL, NULL, NULL) == PAGE4D_USAGE);

  page4d_options options = PAGE4D_OPTIONS_INIT;
  page4d_pipeline* pipeline = NULL;
  CHECK(page4d_load(argv[1], NULL, &pipeline) == PAGE4D_INCOMPATIBLE && pipeline == NULL);
  CHECK(strncmp(page4d_last_error(), "the engine folder has no graphs for ONNX Runtime on a CPU\n", 58) == 0);
  options.backend = PAGE4D_TENSORRT;
  CHECK(page4d_load(argv[1], &options, &pipeline) == PAGE4D_INCOMPATIBLE && pipeline == NULL);
  CHECK(strncmp(page4d_last_error(), "the engine folder has no TensorRT plans\n", 40) == 0);
  options.backend = 7;
  CHECK(page4d_load(argv[1], &options, &pipeline) == PAGE4D_USAGE && pipeline == NULL);
  options.backend = PAGE4D_TEST;
  options.camera_count = 2;
  CHECK(page4d_load(argv[1], &options, &pipeline) == PAGE4D_USAGE && pipeline == NULL);
  CHECK(strncmp(page4d_last_error(), "there are not as many cameras as camera_count says\n", 51) == 0);
  options.camera_count = 0;
  CHECK(page4d_load(argv[1], &options, &pipeline) == PAGE4D_OK);
  CHECK(page4d_layout_of(pipeline, &layout) == PAGE4D_OK && layout.V == 3 && page4d_unit(pipeline) == NULL);

  page4d_tensor tensor = PAGE4D_TENSOR_INIT;
  page4d_outputs outputs = PAGE4D_OUTPUTS_INIT;
  for (int32_t i = 0; i < page4d_output_count(pipeline); ++i) {
    CHECK(page4d_output_tensor(pipeline, i, &tensor) == PAGE4D_OK);
    if (strcmp(tensor.name, "camera") == 0) {
      CHECK(tensor.rank == 4 && tensor.dtype == PAGE4D_FLOAT64 && tensor.shape[1] == 3 && tensor.shape[3] == 4);
      outputs.camera.data = calloc(1, tensor.bytes);
      outputs.camera.bytes = tensor.bytes;
    }
  }
  CHECK(page4d_output_tensor(pipeline, 99, &tensor) == PAGE4D_USAGE);
  CHECK(outputs.camera.data != NULL);

  page4d_image images[3];
  black_images(images);
  page4d_frames frames = PAGE4D_FRAMES_INIT;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_USAGE);
  CHECK(strncmp(page4d_last_error(), "a window has no images\n", 23) == 0);
  frames.images = images;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_OK);
  const double* pose = outputs.camera.data;
  CHECK(pose[15] == 1 && fabs(pose[0] * pose[0] + pose[1] * pose[1] + pose[2] * pose[2] - 1) < 1e-12);
  images[1].pixels = PAGE4D_BAYER_GRBG8 + 1;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_USAGE);
  images[1].pixels = PAGE4D_RGB8;
  images[1].reserved[3] = 1;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_USAGE);
  CHECK(strstr(page4d_last_error(), "its reserved bytes are not zero") != NULL);
  images[1].reserved[3] = 0;
  outputs.camera.memory = 2;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_USAGE);
  CHECK(strcmp(page4d_last_error(), "an output's memory is out of range, or its reserved bytes are not zero") == 0);
  outputs.camera.memory = PAGE4D_HOST;
  outputs.camera.reserved = 1;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_USAGE);
  outputs.camera.reserved = 0;
  {
    page4d_output layers[2];
    memset(layers, 0, sizeof layers);
    layers[1] = outputs.camera;
    outputs.layers = layers;
    outputs.layer_count = 2;
    CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_USAGE);
    CHECK(strncmp(page4d_last_error(), "memory is given for an output that these engines lack\n", 54) == 0);
    outputs.layers = NULL;
  }

  page4d_rig* rig = NULL;
  page4d_rig_counts rig_counts = PAGE4D_RIG_COUNTS_INIT;
  page4d_camera_counts camera_counts = PAGE4D_CAMERA_COUNTS_INIT;
  page4d_window window = PAGE4D_WINDOW_INIT;
  int32_t ready = -1;
  CHECK(page4d_rig_make(pipeline, NULL, &rig) == PAGE4D_OK);
  CHECK(test_nulls(pipeline, rig, images) == 0);
  CHECK(page4d_rig_take(rig, &window) == 0);
  for (int camera = 0; camera < 3; ++camera)
    CHECK(page4d_rig_push(rig, camera, &images[camera], 1000000000 + 1000000 * camera, &ready) == PAGE4D_OK);
  CHECK(ready == 1);
  CHECK(page4d_rig_push(rig, 3, &images[0], 1, &ready) == PAGE4D_USAGE);
  CHECK(page4d_rig_take(rig, &window) == 1);
  CHECK(window.number == 0 && fabs(window.skew - 0.002) < 1e-9 && window.stamps[2] == 1002000000);
  frames.images = window.images;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_OK);
  page4d_rig_release(rig);
  CHECK(page4d_rig_counts_of(rig, &rig_counts) == PAGE4D_OK && rig_counts.windows == 1);
  CHECK(page4d_rig_camera_counts(rig, 2, &camera_counts) == PAGE4D_OK && camera_counts.used == 1);

  page4d_rig_free(rig);
  page4d_free(pipeline);
  free(outputs.camera.data);
  return 0;
}
