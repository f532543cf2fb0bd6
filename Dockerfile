#   docker build -t knet .
#   docker run --rm -v "$PWD:/data" knet predict rtknet-lite-street street.jpg
#   docker run --rm --gpus all -v "$PWD:/data" knet predict rtknet-lite-street drive.mp4 --track
# pip's usual PyTorch brings CUDA along. For machines without a GPU a much smaller image is made with the address of
# PyTorch's CPU packages, which its installation page names:  docker build --build-arg TORCH_INDEX=ADDRESS -t knet .
FROM python:3.12-slim
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 KNET_HOME=/data/.knet
RUN pip install torch torchvision ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
COPY . /src
RUN pip install /src && rm -r /src
WORKDIR /data
ENTRYPOINT ["knet"]
CMD ["demo"]
