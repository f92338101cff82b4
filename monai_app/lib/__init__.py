"""The Any2all server: MONAI Label's app with jobs, a closed door and words for every error."""
