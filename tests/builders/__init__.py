"""Writers of valid traces: sub-buffers, trace.dat files, and async page fault histories."""
