#include "kernels/threads/core.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace lmfusion {

#if defined(__linux__)

int CurrentCore() { return sched_getcpu(); }

bool LeaveCore(int core) {
  cpu_set_t all, others;
  if (core < 0 || core >= CPU_SETSIZE || sched_getaffinity(0, sizeof(all), &all) != 0) return false;
  others = all;
  CPU_CLR(core, &others);
  if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof(others), &others) != 0) return false;
  sched_setaffinity(0, sizeof(all), &all);
  return true;
}

#else

int CurrentCore() { return -1; }
bool LeaveCore(int) { return false; }

#endif

}  // namespace lmfusion
