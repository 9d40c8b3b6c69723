/* The version of the kernels' arguments, which fastseg/native.py compares with its own. */

int fastseg_native_version(void) { return 2; }
