#include "retake-stop.h"

#include <cstdint>

// The other thread writes an aligned int32_t, which no machine tears; that a change is seen a few
// nodes late does not matter, that the read is not hoisted out of the loop does.
bool retake_stop_wanted(void * wanted) {
    return wanted && *static_cast<volatile const int32_t *>(wanted) != 0;
}
