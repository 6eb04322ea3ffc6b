/* What a program in C asks a pipeline and a rig for, and structs of other headers. C89 and C++. The argument is an
 * engine folder of Pi3's golden plan: one timestep, three views. */
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

#define WIDTH 70
#define HEIGHT 56
#define VIEWS 3

static const unsigned char pixels[WIDTH * HEIGHT * 3] = {0};

static void make_images(page4d_image images[VIEWS]) {
  int i;
  for (i = 0; i < VIEWS; ++i) {
    const page4d_image empty = PAGE4D_IMAGE_INIT;
    images[i] = empty;
    images[i].data = pixels;
    images[i].width = WIDTH;
    images[i].height = HEIGHT;
  }
}

typedef struct messages {
  int count[3]; /* by level */
  char last[256];
} messages;

/* A page4d_log. */
static void keep(void* context, int32_t level, const char* message) {
  messages* kept = (messages*)context;
  ++kept->count[level];
  strncpy(kept->last, message, sizeof kept->last - 1);
}

/* Structs of a program that was compiled with a later header: the same, and more. */
typedef struct later_options {
  page4d_options known;
  int64_t unknown[2];
} later_options;
typedef struct later_counts {
  page4d_rig_counts known;
  int64_t unknown[2];
} later_counts;

static int test_version(void) {
  char text[32];
  CHECK(strcmp(page4d_version(), PAGE4D_VERSION) == 0);
  sprintf(text, "%d.%d.%d", PAGE4D_VERSION_NUMBER / 10000, PAGE4D_VERSION_NUMBER / 100 % 100,
          PAGE4D_VERSION_NUMBER % 100);
  CHECK(strcmp(text, PAGE4D_VERSION) == 0);
  return 0;
}

static int test_sizes_of_options(const char* folder) {
  page4d_options options = PAGE4D_OPTIONS_INIT;
  later_options later;
  page4d_pipeline* pipeline = NULL;
  options.backend = PAGE4D_TEST;
  options.struct_size = 0;
  CHECK(page4d_load(folder, &options, &pipeline) == PAGE4D_USAGE && pipeline == NULL);
  CHECK(strncmp(page4d_last_error(), "page4d_options has no valid struct_size\n  got:     0\n", 53) == 0);
  options.struct_size = sizeof options - 1;
  CHECK(page4d_load(folder, &options, &pipeline) == PAGE4D_USAGE);
  options.struct_size = (size_t)-1; /* memory that was never set */
  CHECK(page4d_load(folder, &options, &pipeline) == PAGE4D_USAGE);

  memset(&later, 0, sizeof later);
  later.known = options;
  later.known.struct_size = sizeof later;
  CHECK(page4d_load(folder, &later.known, &pipeline) == PAGE4D_OK);
  page4d_free(pipeline);
  later.unknown[1] = 1;
  CHECK(page4d_load(folder, &later.known, &pipeline) == PAGE4D_USAGE && pipeline == NULL);
  CHECK(strncmp(page4d_last_error(), "page4d_options uses what this library does not know", 51) == 0);
  return 0;
}

static int test_sizes_of_other_structs(const page4d_pipeline* pipeline, page4d_pipeline* running, page4d_rig* rig) {
  page4d_layout layout = PAGE4D_LAYOUT_INIT;
  page4d_tensor tensor = PAGE4D_TENSOR_INIT;
  page4d_frames frames = PAGE4D_FRAMES_INIT;
  page4d_outputs outputs = PAGE4D_OUTPUTS_INIT;
  page4d_window window = PAGE4D_WINDOW_INIT;
  page4d_rig_options rig_options = PAGE4D_RIG_OPTIONS_INIT;
  page4d_camera_counts camera_counts = PAGE4D_CAMERA_COUNTS_INIT;
  page4d_rig* none = NULL;
  later_counts counts;
  layout.struct_size = 0;
  CHECK(page4d_layout_of(pipeline, &layout) == PAGE4D_USAGE && layout.T == 0);
  CHECK(page4d_inspect("engines", &layout, NULL) == PAGE4D_USAGE);
  tensor.struct_size = 8;
  CHECK(page4d_output_tensor(pipeline, 0, &tensor) == PAGE4D_USAGE && tensor.name == NULL);
  frames.struct_size = 0;
  CHECK(page4d_run(running, &frames, &outputs, NULL) == PAGE4D_USAGE);
  CHECK(strncmp(page4d_last_error(), "page4d_frames has no valid struct_size\n", 39) == 0);
  frames.struct_size = sizeof frames;
  outputs.struct_size = sizeof(size_t);
  CHECK(page4d_run(running, &frames, &outputs, NULL) == PAGE4D_USAGE);
  CHECK(strncmp(page4d_last_error(), "page4d_outputs has no valid struct_size\n", 40) == 0);
  rig_options.struct_size = 0;
  CHECK(page4d_rig_make(pipeline, &rig_options, &none) == PAGE4D_USAGE && none == NULL);
  window.struct_size = 0;
  CHECK(page4d_rig_take(rig, &window) == -1);
  camera_counts.struct_size = 0;
  CHECK(page4d_rig_camera_counts(rig, 0, &camera_counts) == PAGE4D_USAGE);

  memset(&counts, 1, sizeof counts);
  counts.known.struct_size = sizeof counts;
  CHECK(page4d_rig_counts_of(rig, &counts.known) == PAGE4D_OK);
  CHECK(counts.known.struct_size == sizeof counts && counts.known.times == 0);
  CHECK(counts.unknown[0] == 0 && counts.unknown[1] == 0);
  return 0;
}

static int test_tensors(const page4d_pipeline* pipeline) {
  page4d_tensor tensor = PAGE4D_TENSOR_INIT;
  CHECK(page4d_input_count(pipeline) == 1);
  CHECK(page4d_input_tensor(pipeline, 0, &tensor) == PAGE4D_OK);
  CHECK(strcmp(tensor.name, "images") == 0 && tensor.dtype == PAGE4D_UINT8 && tensor.rank == 5);
  CHECK(tensor.shape[0] == 1 && tensor.shape[1] == VIEWS && tensor.shape[2] == HEIGHT && tensor.shape[3] == WIDTH);
  CHECK(tensor.shape[4] == 3 && tensor.shape[5] == 0 && tensor.bytes == VIEWS * sizeof pixels);
  CHECK(page4d_input_tensor(pipeline, 1, &tensor) == PAGE4D_USAGE);
  CHECK(strcmp(page4d_last_error(), "there is no input of that number") == 0);
  CHECK(page4d_input_tensor(pipeline, -1, &tensor) == PAGE4D_USAGE);
  CHECK(page4d_takes_present(pipeline) == 0);
  return 0;
}

static int test_times_of_stages(page4d_pipeline* pipeline) {
  page4d_image images[VIEWS];
  page4d_frames frames = PAGE4D_FRAMES_INIT;
  page4d_outputs outputs = PAGE4D_OUTPUTS_INIT;
  const char* name = NULL;
  const char* first = NULL;
  double seconds = -1, sum = 0;
  int32_t i;
  CHECK(page4d_stage_count(pipeline) > 3);
  make_images(images);
  frames.images = images;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_OK);
  for (i = 0; i < page4d_stage_count(pipeline); ++i) {
    CHECK(page4d_stage_time(pipeline, i, &name, &seconds) == PAGE4D_OK);
    CHECK(name != NULL && seconds >= 0);
    if (i == 0) first = name;
    CHECK(i == 0 ? strcmp(name, "encoder") == 0 : strcmp(name, first) != 0);
    sum += seconds;
  }
  CHECK(sum > 0);
  CHECK(page4d_stage_time(pipeline, 0, NULL, NULL) == PAGE4D_OK);
  CHECK(page4d_stage_time(pipeline, -1, &name, &seconds) == PAGE4D_USAGE);
  CHECK(page4d_stage_time(pipeline, page4d_stage_count(pipeline), &name, &seconds) == PAGE4D_USAGE);
  CHECK(strcmp(page4d_last_error(), "there is no stage of that number") == 0);
  return 0;
}

/* Absent images are refused by engines that need every one, before anything runs. */
static int test_present(page4d_pipeline* pipeline) {
  page4d_image images[VIEWS];
  page4d_frames frames = PAGE4D_FRAMES_INIT;
  page4d_outputs outputs = PAGE4D_OUTPUTS_INIT;
  page4d_rig_options options = PAGE4D_RIG_OPTIONS_INIT;
  page4d_rig* rig = NULL;
  uint8_t present[VIEWS] = {1, 1, 1};
  make_images(images);
  frames.images = images;
  frames.present = present;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_OK);
  present[2] = 0;
  CHECK(page4d_run(pipeline, &frames, &outputs, NULL) == PAGE4D_USAGE);
  CHECK(strcmp(page4d_last_error(),
               "the image of timestep 0, view 2 is absent, and these engines need every image\n  try:     "
               "page4d-export --absent-views") == 0);
  options.missing = PAGE4D_ABSENT;
  CHECK(page4d_rig_make(pipeline, &options, &rig) == PAGE4D_USAGE && rig == NULL);
  options.missing = PAGE4D_ABSENT + 1;
  CHECK(page4d_rig_make(pipeline, &options, &rig) == PAGE4D_USAGE);
  CHECK(strcmp(page4d_last_error(),
               "what happens to a missing image is out of range\n  got:     3\n  allowed: 0 to 2") == 0);
  return 0;
}

static int test_messages(const char* folder) {
  page4d_options options = PAGE4D_OPTIONS_INIT;
  page4d_pipeline* pipeline = NULL;
  messages kept;
  memset(&kept, 0, sizeof kept);
  options.backend = PAGE4D_TEST;
  options.threads = 3;
  options.log = keep;
  options.log_context = &kept;
  CHECK(page4d_load(folder, &options, &pipeline) == PAGE4D_OK);
  CHECK(strcmp(page4d_described(pipeline), "checksums in place of a network") == 0);
  CHECK(page4d_warning_count(pipeline) == 1 && page4d_warning(pipeline, 1) == NULL);
  CHECK(page4d_warning(pipeline, -1) == NULL);
  CHECK(strcmp(page4d_warning(pipeline, 0), "Options::threads has no effect: it is another backend's") == 0);
  CHECK(strcmp(kept.last, page4d_warning(pipeline, 0)) == 0);
  CHECK(kept.count[PAGE4D_INFO] == 1 && kept.count[PAGE4D_WARNING] == 1 && kept.count[PAGE4D_ERROR] == 0);
  page4d_free(pipeline);
  return 0;
}

static int test_a_rig_until_it_is_closed(page4d_rig* rig) {
  const int64_t now = (int64_t)1790000000 * 1000000000 + 123456789; /* a double would lose the last three digits */
  page4d_image images[VIEWS];
  page4d_window window = PAGE4D_WINDOW_INIT;
  page4d_camera_counts counts = PAGE4D_CAMERA_COUNTS_INIT;
  int i;
  make_images(images);
  CHECK(page4d_rig_wait(rig, 0) == 0 && page4d_rig_closed(rig) == 0 && page4d_rig_take(rig, &window) == 0);
  CHECK(page4d_rig_camera_counts(rig, 0, &counts) == PAGE4D_OK && counts.last_stamp == PAGE4D_NO_STAMP);
  CHECK(page4d_rig_camera_counts(rig, VIEWS, &counts) == PAGE4D_USAGE);
  CHECK(page4d_rig_push(rig, 0, images, PAGE4D_NO_STAMP, NULL) == PAGE4D_USAGE);
  for (i = 0; i < VIEWS; ++i) CHECK(page4d_rig_push(rig, i, &images[i], now + i, NULL) == PAGE4D_OK);
  CHECK(page4d_rig_wait(rig, HUGE_VAL) == 1);
  CHECK(page4d_rig_take(rig, &window) == 1);
  for (i = 0; i < VIEWS; ++i) {
    CHECK(window.stamps[i] == now + i && window.repeated[i] == 0 && window.present[i] == 1);
    CHECK(window.images[i].width == WIDTH && window.images[i].height == HEIGHT);
  }
  CHECK(window.skew == 2e-9 && window.struct_size == sizeof window);
  page4d_rig_release(rig);
  page4d_rig_close(rig);
  CHECK(page4d_rig_closed(rig) == 1 && page4d_rig_wait(rig, HUGE_VAL) == 0);
  CHECK(page4d_rig_push(rig, 0, images, now + 100, NULL) == PAGE4D_USAGE);
  CHECK(strcmp(page4d_last_error(), "the rig is closed") == 0);
  CHECK(page4d_rig_camera_counts(rig, 0, &counts) == PAGE4D_OK && counts.last_stamp == now && counts.absent == 0);
  return 0;
}

int main(int argc, char** argv) {
  page4d_options options = PAGE4D_OPTIONS_INIT;
  page4d_pipeline* pipeline = NULL;
  page4d_rig* rig = NULL;
  CHECK(argc == 2);
  CHECK(test_version() == 0);
  CHECK(test_sizes_of_options(argv[1]) == 0);
  CHECK(test_messages(argv[1]) == 0);
  options.backend = PAGE4D_TEST;
  CHECK(page4d_load(argv[1], &options, &pipeline) == PAGE4D_OK);
  CHECK(page4d_rig_make(pipeline, NULL, &rig) == PAGE4D_OK);
  CHECK(test_sizes_of_other_structs(pipeline, pipeline, rig) == 0);
  CHECK(test_tensors(pipeline) == 0);
  CHECK(test_times_of_stages(pipeline) == 0);
  CHECK(test_present(pipeline) == 0);
  page4d_free(pipeline); /* the rig goes on */
  CHECK(test_a_rig_until_it_is_closed(rig) == 0);
  page4d_rig_free(rig);
  return 0;
}
