// Stopping llama_decode() from another thread: an abort callback that only reads memory, so that
// computing threads call it without entering the language that the caller is written in.

#ifndef RETAKE_STOP_H
#define RETAKE_STOP_H

#include "llama.h"

#ifdef __cplusplus
extern "C" {
#endif

// A ggml_abort_callback: true once the int32_t at "wanted" is not 0. NULL never stops.
LLAMA_API bool retake_stop_wanted(void * wanted);

#ifdef __cplusplus
}
#endif

#endif
