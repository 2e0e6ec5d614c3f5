# Settings for mpirun on one machine, sourced by the Makefile's scripts: root is allowed (containers),
# more ranks than cores are allowed and then give way to each other, and each rank has one thread
# unless the caller says otherwise. DPT_MPIRUN is the launcher with its options: mpirun, or that
# of DPT_MPI (openmpi, mpich) where both are installed; Open MPI's is told not to talk about failing ranks.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_mpi_yield_when_idle=1
export OMPI_MCA_btl_vader_single_copy_mechanism=${OMPI_MCA_btl_vader_single_copy_mechanism:-none}
export OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy:-none}
export MPIR_CVAR_POLLS_BEFORE_YIELD=${MPIR_CVAR_POLLS_BEFORE_YIELD:-1} # MPICH's way to give way
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# What Open MPI picks on one machine anyway; looking for fabrics first costs more than starting the ranks.
export OMPI_MCA_pml=${OMPI_MCA_pml:-ob1} OMPI_MCA_btl=${OMPI_MCA_btl:-self,vader}
export OMPI_MCA_plm=${OMPI_MCA_plm:-isolated} OMPI_MCA_coll=${OMPI_MCA_coll:-^hcoll}
if [[ -z ${DPT_MPIRUN:-} ]]; then
    DPT_MPIRUN=mpirun
    [[ -n ${DPT_MPI:-} ]] && command -v "mpirun.$DPT_MPI" >/dev/null && DPT_MPIRUN=mpirun.$DPT_MPI
    [[ $("$DPT_MPIRUN" --version 2>/dev/null) == *open-mpi* ]] && DPT_MPIRUN="$DPT_MPIRUN -q"
    export DPT_MPIRUN
fi
