/* Settings of the sanitizer builds; nothing in others. */
#ifdef __SANITIZE_ADDRESS__

int dlclose(void *handle);
const char *__asan_default_options(void);

/* Open MPI unloads its plugins in MPI_Finalize; what they leaked would then belong to no module and
 * lsan.supp could not name it. So plugins stay loaded. */
int dlclose(void *handle) {
    (void)handle;
    return 0;
}

/* A refused allocation is an error that we handle, as without the sanitizer. */
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}

#else
typedef int dpt_no_sanitizer; /* a translation unit is not empty */
#endif
