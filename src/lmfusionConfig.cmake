# lmfusion::lmfusion needs nothing of its users: its headers name no other library, and the shared
# library knows where the torch libraries are that it was built with.
include(${CMAKE_CURRENT_LIST_DIR}/lmfusionTargets.cmake)
