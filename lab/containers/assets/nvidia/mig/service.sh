#!/bin/bash
# service.sh (SIMULATED by the lab): at each boot the layouts are made from the GPUs, and the one that was kept is applied.
config=/etc/nvidia-mig-manager/config.yaml
if nvidia-mig-parted generate-config -f $config.tmp; then
    { printf '# DO NOT EDIT: Auto-generated from hardware on every boot.\n# To use a custom config, set MIG_PARTED_CONFIG_FILE.\n\n'
      cat $config.tmp; } >$config
fi
rm -f $config.tmp
export MIG_PARTED_CONFIG_FILE=${MIG_PARTED_CONFIG_FILE:-$config}
export MIG_PARTED_HOOKS_FILE=${MIG_PARTED_HOOKS_FILE:-/etc/nvidia-mig-manager/hooks.yaml} MIG_PARTED_SELECTED_CONFIG
nvidia-mig-parted assert --mode-only || nvidia-mig-parted apply --mode-only || exit 1
nvidia-mig-parted apply || exit 1
nvidia-mig-parted export
