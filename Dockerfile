# The processor's version:  docker build -t knet .
# For NVIDIA GPUs:          docker build -t knet-cuda --build-arg INDEX=https://download.pytorch.org/whl/cu128 .
#   docker run --rm -v "$PWD:/data" knet predict rtknet-lite-street street.jpg
#   docker run --rm --gpus all -v "$PWD:/data" knet-cuda predict rtknet-lite-street drive.mp4 --track
FROM python:3.12-slim
ARG INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 KNET_HOME=/data/.knet
RUN pip install torch torchvision --index-url "$INDEX"
COPY . /src
RUN pip install /src && rm -r /src
WORKDIR /data
ENTRYPOINT ["knet"]
CMD ["demo"]
