# Settings for mpirun on one machine, sourced by the Makefile's scripts: root is allowed (containers),
# more ranks than cores are allowed and then give way to each other, and each rank has one thread
# unless the caller says otherwise.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_btl_vader_single_copy_mechanism=${OMPI_MCA_btl_vader_single_copy_mechanism:-none}
export OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy:-none}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# What Open MPI picks on one machine anyway; looking for fabrics first costs more than starting the ranks.
export OMPI_MCA_pml=${OMPI_MCA_pml:-ob1} OMPI_MCA_btl=${OMPI_MCA_btl:-self,vader}
export OMPI_MCA_plm=${OMPI_MCA_plm:-isolated} OMPI_MCA_coll=${OMPI_MCA_coll:-^hcoll}
