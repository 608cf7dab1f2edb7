#pragma once

namespace lmfusion {

// The core that this thread is on; -1 where that cannot be known.
int CurrentCore();

// Puts the calling thread on another core than `core`, of those that it may run on, which stay what
// they were: it may come back. False where there is no other, or the system cannot.
bool LeaveCore(int core);

}  // namespace lmfusion
