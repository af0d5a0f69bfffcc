"""The image, the compose file and the manifests, run without Docker and without a cluster: `make rehearse`."""
