/* For `make tidy` where clang has no omp.h of its own: gcc's is not for clang. */
int omp_get_max_threads(void);
int omp_get_num_threads(void);
int omp_get_thread_num(void);
int omp_get_level(void);
int omp_get_ancestor_thread_num(int level);
int omp_in_parallel(void);
void omp_set_dynamic(int dynamic);
void omp_set_num_threads(int threads);
