/* The runtime for C (C89 with stdint.h, or newer) and every language that calls C.
 *
 * Errors. A call that returns `int` and says nothing else gives a page4d_code; 0 is success, and page4d_last_error()
 * then is the text of the calling thread's last failure. Nothing is thrown. A required pointer that is null gives
 * PAGE4D_USAGE, or zeros where a call returns no code.
 *
 * Structs. `struct_size` is the first member of every struct that the caller makes or has filled, and says which header
 * the caller was compiled with: initialise with the macro PAGE4D_.._INIT, or set everything to zero and struct_size to
 * sizeof the struct. A library of a newer header takes a smaller struct, reads zeros for what it lacks, and writes
 * nothing beyond its end. A library of an older header takes a larger struct if what it does not know is zero, else
 * gives PAGE4D_USAGE. A zero member means the default. page4d_image, page4d_camera and page4d_output have no such
 * member: they lie in arrays, and stay as they are.
 *
 * Memory. What a caller passes is the caller's, and read during the call alone, if nothing else is said. What a call
 * returns is the object's, and the caller frees none of it.
 *
 * Threads. One thread at a time uses a pipeline, another one each time if need be; the calls that say so are allowed to
 * any thread at any time, as are those without an object. Of a rig: see page4d_rig_make. */
#ifndef PAGE4D_PAGE4D_H
#define PAGE4D_PAGE4D_H

#include <stddef.h>
#include <stdint.h>

#include "page4d/export.h"
#include "page4d/version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The exit codes of page4d's commands. */
enum page4d_code {
  PAGE4D_OK = 0,
  PAGE4D_FAILURE = 1,
  PAGE4D_USAGE = 2,
  PAGE4D_ACCURACY = 3,
  PAGE4D_INCOMPATIBLE = 4,
  PAGE4D_MISSING_BACKEND = 5,
  PAGE4D_OUT_OF_MEMORY = 6
};

enum page4d_backend {
  PAGE4D_AUTO = 0,
  PAGE4D_TENSORRT = 1,
  PAGE4D_ONNXRUNTIME = 2,
  PAGE4D_TEST = 3,
  PAGE4D_ONNXRUNTIME_CUDA = 4
};
enum page4d_memory { PAGE4D_HOST = 0, PAGE4D_DEVICE = 1 };
/* YUV is BT.601 of limited range; page4d/image.h has what each format is. */
enum page4d_pixels {
  PAGE4D_RGB8 = 0,
  PAGE4D_BGR8 = 1,
  PAGE4D_RGBA8 = 2,
  PAGE4D_BGRA8 = 3,
  PAGE4D_MONO8 = 4,
  PAGE4D_NV12 = 5,
  PAGE4D_NV21 = 6,
  PAGE4D_YUYV = 7,
  PAGE4D_UYVY = 8,
  PAGE4D_BAYER_RGGB8 = 9,
  PAGE4D_BAYER_BGGR8 = 10,
  PAGE4D_BAYER_GBRG8 = 11,
  PAGE4D_BAYER_GRBG8 = 12
};
enum page4d_fit {
  PAGE4D_FIT_NONE = 0,
  PAGE4D_STRETCH = 1,
  PAGE4D_CROP = 2,
  PAGE4D_PAD = 3,
  PAGE4D_PUBLISHED = 4,
  PAGE4D_PUBLISHED_PAD = 5,
  PAGE4D_PUBLISHED_DA3 = 6
};
enum page4d_dtype {
  PAGE4D_UINT8 = 0,
  PAGE4D_INT32 = 1,
  PAGE4D_FLOAT32 = 2,
  PAGE4D_FLOAT16 = 3,
  PAGE4D_BFLOAT16 = 4,
  PAGE4D_FLOAT64 = 5
};
/* What points in the world are made from: depth where there is all that it takes, else points; depth, camera and
 * intrinsics; points. */
enum page4d_points_source { PAGE4D_FROM_BEST = 0, PAGE4D_FROM_DEPTH = 1, PAGE4D_FROM_POINTS = 2 };
/* A timestep for which a camera has no image: it is dropped; the camera's last image is used again; it is made without
 * that image, for engines that page4d_takes_present. */
enum page4d_missing { PAGE4D_SKIP = 0, PAGE4D_REPEAT = 1, PAGE4D_ABSENT = 2 };
enum page4d_log_level { PAGE4D_INFO = 0, PAGE4D_WARNING = 1, PAGE4D_ERROR = 2 };

/* In place of a stamp where there is no image. Stamps are nanoseconds, on one clock for all cameras. */
#define PAGE4D_NO_STAMP INT64_MIN

typedef struct page4d_pipeline page4d_pipeline;
typedef struct page4d_rig page4d_rig;

/* context: page4d_options.log_context. level: page4d_log_level. message: one line or several, valid during the call.
 * Any thread calls it, several at once; it must not call the library, and must not throw. */
typedef void (*page4d_log)(void* context, int32_t level, const char* message);

/* An image in the caller's memory. Set it to zeros, or PAGE4D_IMAGE_INIT, before its members: images lie in arrays, so
 * this struct never grows, and what is reserved may get a meaning. */
typedef struct page4d_image {
  const void* data;
  int32_t width, height;
  size_t pitch;         /* bytes from one row to the next; 0: no padding between rows */
  int32_t pixels;       /* page4d_pixels */
  int32_t memory;       /* page4d_memory */
  const void* chroma;   /* of PAGE4D_NV12, PAGE4D_NV21: the second plane; null: it follows the first */
  size_t chroma_pitch;  /* bytes from one row of the second plane to the next; 0: as many as in the first */
  uint64_t reserved[4]; /* zeros; anything else is PAGE4D_USAGE */
} page4d_image;
#define PAGE4D_IMAGE_INIT {0, 0, 0, 0, 0, 0, 0, 0, {0, 0, 0, 0}}

/* As an entry of cameras.json; matrices row by row. */
typedef struct page4d_camera {
  int32_t width, height;
  double K[9];
  double world_to_camera[12];
} page4d_camera;

/* Where a result is written; data null: nowhere. */
typedef struct page4d_output {
  void* data;
  size_t bytes;
  int32_t memory;   /* page4d_memory */
  int32_t reserved; /* 0; anything else is PAGE4D_USAGE */
} page4d_output;

/* All zero: plans on GPU 0 where they run, else ONNX Runtime; images in the engines' size. */
typedef struct page4d_options {
  size_t struct_size;
  int32_t backend; /* page4d_backend */
  int32_t device;
  int32_t frame_width, frame_height;
  int32_t fit;             /* page4d_fit */
  int32_t used_files_only; /* whether only files that are loaded are compared with their hashes */
  int32_t no_graph;
  int32_t sliding;              /* whether windows overlap: see page4d_frames.shared */
  const page4d_camera* cameras; /* one per view, or null */
  int64_t camera_count;
  const char* tensorrt_library;    /* null: libtensorrt_rtx.so or libnvinfer.so */
  const char* plugin_library;      /* null: the one beside this library */
  const char* onnxruntime_library; /* null: libonnxruntime.so, else that of a Python environment */
  int32_t threads;                 /* of ONNX Runtime, for the whole process; 0: every CPU */
  int32_t load_folder_plugins;     /* whether to run the engine folder's library of plugins, if its manifest lists it */
  page4d_log log;                  /* called until the pipeline is freed; null: nothing is printed */
  void* log_context;               /* the caller's; valid until the pipeline is freed */
} page4d_options;
#define PAGE4D_OPTIONS_INIT {sizeof(page4d_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* One window: T*V images, t slow, v fast. */
typedef struct page4d_frames {
  size_t struct_size;
  const page4d_image* images;
  const page4d_image* masks;     /* null: none */
  const page4d_image* keypoints; /* null: none */
  const void* memory;            /* of the window before, in host memory; null: the learned initial memory */
  int64_t shared;         /* timesteps at its start that ended the window before; of a sliding pipeline, else 0 */
  const uint8_t* present; /* a byte per image: 1; 0: the image is absent, and not read. null: all are there */
} page4d_frames;
#define PAGE4D_FRAMES_INIT {sizeof(page4d_frames), 0, 0, 0, 0, 0, 0}

/* What each of them is: page4d::Outputs in pipeline.h. */
typedef struct page4d_outputs {
  size_t struct_size;
  page4d_output mask, memory, points, confidence, camera;
  page4d_output points_confidence, depth, depth_confidence, intrinsics, metric, sky;
  const page4d_output* layers; /* in the order of the kept layers; null: no layer is written */
  int64_t layer_count;
} page4d_outputs;
#define PAGE4D_NO_OUTPUT {0, 0, 0, 0}
#define PAGE4D_OUTPUTS_INIT \
  {sizeof(page4d_outputs),  \
   PAGE4D_NO_OUTPUT,        \
   PAGE4D_NO_OUTPUT,        \
   PAGE4D_NO_OUTPUT,        \
   PAGE4D_NO_OUTPUT,        \
   PAGE4D_NO_OUTPUT,        \
   PAGE4D_NO_OUTPUT,        \
   PAGE4D_NO_OUTPUT,        \
   PAGE4D_NO_OUTPUT,        \
   PAGE4D_NO_OUTPUT,        \
   PAGE4D_NO_OUTPUT,        \
   PAGE4D_NO_OUTPUT,        \
   0,                       \
   0}

typedef struct page4d_layout {
  size_t struct_size;
  int64_t T, V, H, W, B;
  int64_t registers; /* register tokens of an image */
} page4d_layout;
#define PAGE4D_LAYOUT_INIT {sizeof(page4d_layout), 0, 0, 0, 0, 0, 0}

/* An input or output of the engines. */
typedef struct page4d_tensor {
  size_t struct_size;
  const char* name; /* valid as long as the pipeline */
  int32_t dtype;    /* page4d_dtype */
  int32_t rank;
  int64_t shape[8];
  size_t bytes;
} page4d_tensor;
#define PAGE4D_TENSOR_INIT {sizeof(page4d_tensor), 0, 0, 0, {0, 0, 0, 0, 0, 0, 0, 0}, 0}

/* The library's version, as PAGE4D_VERSION is the header's. A constant. */
PAGE4D_API const char* page4d_version(void);

/* All lines of the error of this thread's last call that failed; valid until its next call that fails. */
PAGE4D_API const char* page4d_last_error(void);

/* Checks an engine folder, without a GPU, and gives its layout. layout and buffer_bytes may be null. */
PAGE4D_API int page4d_inspect(const char* folder, page4d_layout* layout, size_t* buffer_bytes);

/* Loads an engine folder: pipeline is then to be freed by page4d_free, or null after an error. options null: all zero.
 */
PAGE4D_API int page4d_load(const char* folder, const page4d_options* options, page4d_pipeline** pipeline);
/* Waits until the last window is done. No other call may be under way. Null is allowed. */
PAGE4D_API void page4d_free(page4d_pipeline* pipeline);

/* What was loaded. Any thread, at any time, until the pipeline is freed; so long texts are valid. */
PAGE4D_API int page4d_layout_of(const page4d_pipeline* pipeline, page4d_layout* layout);
/* What computes: "ONNX Runtime 1.22.0 on the CPU, 8 threads". */
PAGE4D_API const char* page4d_described(const page4d_pipeline* pipeline);
/* The unit of lengths: "metres"; "cameras", that of page4d_options.cameras; null if each window has a scale of its own.
 */
PAGE4D_API const char* page4d_unit(const page4d_pipeline* pipeline);
/* Whether images may be absent, 1 or 0: page4d_frames.present, PAGE4D_ABSENT. */
PAGE4D_API int page4d_takes_present(const page4d_pipeline* pipeline);
/* Warnings of page4d_load: why there is no CUDA graph, why plans were not taken, options without effect. number: from
 * 0; null if there is none of that number. */
PAGE4D_API int32_t page4d_warning_count(const page4d_pipeline* pipeline);
PAGE4D_API const char* page4d_warning(const page4d_pipeline* pipeline, int32_t number);
/* By number, from 0; the tensor says its name. Inputs: "images", and those of "cameras", "mask_ext", "keypoints",
 * "fundamental", "memory" and "present" that the engines read. Outputs: as the members of page4d_outputs, layers as
 * "layers.<i>". */
PAGE4D_API int32_t page4d_input_count(const page4d_pipeline* pipeline);
PAGE4D_API int page4d_input_tensor(const page4d_pipeline* pipeline, int32_t number, page4d_tensor* tensor);
PAGE4D_API int32_t page4d_output_count(const page4d_pipeline* pipeline);
PAGE4D_API int page4d_output_tensor(const page4d_pipeline* pipeline, int32_t number, page4d_tensor* tensor);
PAGE4D_API int32_t page4d_stage_count(const page4d_pipeline* pipeline);

/* As page4d::Pipeline::run: allocates nothing. stream: a cudaStream_t; null: everything is done when the call returns.
 * Windows on several streams run one after the other; pipeline.h says what the caller has to order. One thread at a
 * time: a second one gets PAGE4D_USAGE. */
PAGE4D_API int page4d_run(page4d_pipeline* pipeline, const page4d_frames* frames, const page4d_outputs* outputs,
                          void* stream);
/* A stage's name, valid as long as the pipeline, and its seconds in the last window; 0 before the first. Waits until
 * the window is done. number: from 0, less than page4d_stage_count. name and seconds may be null. Not while page4d_run
 * is under way: PAGE4D_USAGE. */
PAGE4D_API int page4d_stage_time(page4d_pipeline* pipeline, int32_t number, const char** name, double* seconds);

/* As page4d::world_points: every pixel's point in the world, float32 [T,V,H,W,3], from the outputs of a window that is
 * done. source: page4d_points_source. bytes: of target. Any thread. */
PAGE4D_API int page4d_world_points(const page4d_pipeline* pipeline, const page4d_outputs* outputs, int32_t source,
                                   float* target, size_t bytes);

/* All zero: as page4d::RigOptions, windows without overlap. */
typedef struct page4d_rig_options {
  size_t struct_size;
  int64_t stride;
  double tolerance, patience; /* seconds; 0: the default */
  int32_t pending;            /* 0: the default */
  int32_t missing;            /* page4d_missing */
  int32_t windows;            /* 0: the default */
  int32_t frame_width, frame_height;
  int32_t fit; /* page4d_fit */
} page4d_rig_options;
#define PAGE4D_RIG_OPTIONS_INIT {sizeof(page4d_rig_options), 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* The rig's memory, valid until the window is released. */
typedef struct page4d_window {
  size_t struct_size;
  const page4d_image* images; /* T*V: for page4d_frames.images */
  const int64_t* stamps;      /* T*V, nanoseconds, of each image; PAGE4D_NO_STAMP for a black or an absent image */
  const uint8_t* repeated;    /* T*V, 1: an older image or black is used instead */
  const uint8_t* present;     /* T*V, 1; 0: the image is absent. For page4d_frames.present */
  double skew;                /* seconds between the stamps of a timestep, the largest */
  int64_t number;             /* counts all complete windows, from 0 */
  int64_t shared;             /* timesteps at its start that ended the window taken before */
} page4d_window;
#define PAGE4D_WINDOW_INIT {sizeof(page4d_window), 0, 0, 0, 0, 0, 0, 0}

/* As page4d::RigCounts. */
typedef struct page4d_rig_counts {
  size_t struct_size;
  int64_t times, windows, windows_dropped, windows_with_holes;
  double largest_skew, mean_skew; /* seconds */
} page4d_rig_counts;
#define PAGE4D_RIG_COUNTS_INIT {sizeof(page4d_rig_counts), 0, 0, 0, 0, 0, 0}

/* As page4d::CameraCounts. */
typedef struct page4d_camera_counts {
  size_t struct_size;
  int64_t pushed, used, late, unmatched, repeated, absent;
  int64_t last_stamp; /* PAGE4D_NO_STAMP before the first image */
} page4d_camera_counts;
#define PAGE4D_CAMERA_COUNTS_INIT {sizeof(page4d_camera_counts), 0, 0, 0, 0, 0, 0, 0}

/* For the pipeline's engines; it may be freed before the rig. rig is to be freed by page4d_rig_free, or null after an
 * error. options null: all zero.
 *
 * Threads: page4d_rig_push from one per camera; take, release and wait from one more; counts, close and closed from
 * any. */
PAGE4D_API int page4d_rig_make(const page4d_pipeline* pipeline, const page4d_rig_options* options, page4d_rig** rig);
/* No other call may be under way. Null is allowed. */
PAGE4D_API void page4d_rig_free(page4d_rig* rig);
/* Fits the image to the engines' size before the call returns. stamp: nanoseconds. ready: how many windows can be
 * taken; may be null. PAGE4D_USAGE, too, if the rig is closed or another thread is pushing an image of this camera. */
PAGE4D_API int page4d_rig_push(page4d_rig* rig, int32_t camera, const page4d_image* image, int64_t stamp,
                               int32_t* ready);
/* 1 if a window was taken, 0 if none is ready or the one before was not released, -1 if an argument cannot be used
 * (page4d_last_error). */
PAGE4D_API int page4d_rig_take(page4d_rig* rig, page4d_window* window);
/* Lets the rig overwrite the window that was taken. */
PAGE4D_API void page4d_rig_release(page4d_rig* rig);
/* Waits until a window is ready, at most so long, infinity included. 1 if one is ready, 0 if none is or the rig is
 * closed, -1 if rig is null. */
PAGE4D_API int page4d_rig_wait(page4d_rig* rig, double seconds);
/* A wait under way, and every later one, returns 0 at once, and images are refused. Windows that are ready can still be
 * taken. */
PAGE4D_API void page4d_rig_close(page4d_rig* rig);
/* 1 or 0. */
PAGE4D_API int page4d_rig_closed(const page4d_rig* rig);
PAGE4D_API int page4d_rig_counts_of(const page4d_rig* rig, page4d_rig_counts* counts);
/* PAGE4D_USAGE if there is no such camera. */
PAGE4D_API int page4d_rig_camera_counts(const page4d_rig* rig, int32_t camera, page4d_camera_counts* counts);

#ifdef __cplusplus
}
#endif

#endif
